module.exports = {
  modelyard: {
    input: "./openapi.json",
    output: { target: "./orval/client.ts", client: "fetch", baseUrl: process.env.MODELYARD_URL },
  },
};
