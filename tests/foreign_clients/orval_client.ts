import * as api from "./orval/client";
import { key, rows, send, some, table, tell, until } from "./scenario";

type Row = api.DiabetesInstance;

const signed = { headers: { Authorization: `Bearer ${key}` } };
// Where a body may have several types, this generator leaves the choice to its caller.
const json = { headers: { ...signed.headers, "Content-Type": "application/json" } };

async function main() {
  const models = await api.listModels(signed);
  if (models.status !== 200) throw new Error(JSON.stringify(models.data));
  const model = await api.getModel("diabetes", signed);
  if (model.status !== 200) throw new Error(JSON.stringify(model.data));
  const signature = some(model.data.signature) as { columns: { name: keyof Row }[] };
  const columns = signature.columns.map((column) => column.name);
  const instances = rows.map(
    (row) => Object.fromEntries(columns.map((name, i) => [name, row[i]])) as unknown as Row,
  );
  const predicted = await api.diabetesPredict({ instances }, undefined, signed);
  if (predicted.status !== 200) throw new Error(JSON.stringify(predicted.data));
  const batch = await api.predictBatch(
    "diabetes",
    { instances: [instances[0], { age: "old" }], options: { return_errors: "individual" } },
    signed,
  );
  if (batch.status !== 200) throw new Error(JSON.stringify(batch.data));
  const explained = await api.diabetesExplain({ instances }, signed);
  if (explained.status !== 200) throw new Error(JSON.stringify(explained.data));
  const upload = await api.createUpload({ content_type: "text/csv" }, signed);
  if (upload.status !== 201) throw new Error(JSON.stringify(upload.data));
  const stored = await send(upload.data, table(columns, rows));
  const submitted = await api.submitJob({ model: "diabetes", input_uri: upload.data.input_uri }, json);
  if (submitted.status !== 202) throw new Error(JSON.stringify(submitted.data));
  const job = await until(
    async () => {
      const answer = await api.getJob(submitted.data.id, signed);
      if (answer.status !== 200) throw new Error(JSON.stringify(answer.data));
      return answer.data;
    },
    (it) => it.completed_at !== null,
  );
  const result = await api.getJobResult(job.id, undefined, signed);
  if (result.status !== 200) throw new Error(JSON.stringify(result.data));
  const refused = await api.predict("none", { instances: [1] }, undefined, signed);
  if (refused.status !== 404) throw new Error(JSON.stringify(refused.data));
  const first = (explained.data as api.DiabetesExplainAnswer).explanations[0];
  tell({
    models: models.data.data.map((it) => it.name),
    prediction: predicted.data.predictions[0],
    badRow: some(batch.data.errors)[0].index,
    badField: some(batch.data.errors)[0].field,
    features: first.features.map((it) => it.feature),
    method: first.method,
    stored,
    status: job.status,
    results: (result.data as api.JobResult).predictions.length,
    refused: (refused.data as api.Error).error.code,
  });
}

main();
