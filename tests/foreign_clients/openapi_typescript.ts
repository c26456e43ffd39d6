import createClient from "openapi-fetch";

import type { components, paths } from "./openapi-typescript/schema";
import { key, rows, send, some, table, tell, until, url } from "./scenario";

type Row = components["schemas"]["DiabetesInstance"];

const client = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${key}` } });

async function main() {
  const models = some((await client.GET("/api/v1/models")).data);
  const named = { params: { path: { model: "diabetes" } } };
  const model = some((await client.GET("/api/v1/models/{model}", named)).data);
  const signature = some(model.signature) as { columns: { name: keyof Row }[] };
  const columns = signature.columns.map((column) => column.name);
  const instances = rows.map((row) => Object.fromEntries(columns.map((name, i) => [name, row[i]])) as Row);
  const predicted = some((await client.POST("/api/v1/models/diabetes/predict", { body: { instances } })).data);
  const batch = some(
    (
      await client.POST("/api/v1/models/{model}/predict/batch", {
        ...named,
        body: { instances: [instances[0], { age: "old" }], options: { return_errors: "individual" } },
      })
    ).data,
  );
  const explained = some(
    (await client.POST("/api/v1/models/diabetes/explain", { body: { instances } })).data,
  ) as components["schemas"]["DiabetesExplainAnswer"];
  const upload = some((await client.POST("/api/v1/uploads", { body: { content_type: "text/csv" } })).data);
  const stored = await send(upload, table(columns, rows));
  const submitted = some(
    (await client.POST("/api/v1/jobs", { body: { model: "diabetes", input_uri: upload.input_uri } })).data,
  );
  const path = { job_id: submitted.id };
  const job = await until(
    async () => some((await client.GET("/api/v1/jobs/{job_id}", { params: { path } })).data),
    (it) => it.completed_at !== null,
  );
  const result = some(
    (await client.GET("/api/v1/jobs/{job_id}/result", { params: { path } })).data,
  ) as components["schemas"]["JobResult"];
  const refused = await client.POST("/api/v1/models/{model}/predict", {
    params: { path: { model: "none" } },
    body: { instances: [1] },
  });
  const first = explained.explanations[0];
  tell({
    models: models.data.map((it) => it.name),
    prediction: predicted.predictions[0],
    badRow: some(batch.errors)[0].index,
    badField: some(batch.errors)[0].field,
    features: first.features.map((it) => it.feature),
    method: first.method,
    stored,
    status: job.status,
    results: result.predictions.length,
    refused: some(refused.error && "error" in refused.error ? refused.error.error.code : undefined),
  });
}

main();
