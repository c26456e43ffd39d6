import * as api from "./hey-api";
import { client } from "./hey-api/client.gen";
import { key, rows, send, some, table, tell, until, url } from "./scenario";

type Row = api.DiabetesInstance;

client.setConfig({ baseUrl: url, auth: key });

async function main() {
  const models = some((await api.listModels()).data);
  const model = some((await api.getModel({ path: { model: "diabetes" } })).data);
  const signature = some(model.signature) as { columns: { name: keyof Row }[] };
  const columns = signature.columns.map((column) => column.name);
  const instances = rows.map(
    (row) => Object.fromEntries(columns.map((name, i) => [name, row[i]])) as Row,
  );
  const predicted = some((await api.diabetesPredict({ body: { instances } })).data);
  const batch = some(
    (
      await api.predictBatch({
        path: { model: "diabetes" },
        body: { instances: [instances[0], { age: "old" }], options: { return_errors: "individual" } },
      })
    ).data,
  );
  const explained = some((await api.diabetesExplain({ body: { instances } })).data) as api.DiabetesExplainAnswer;
  const upload = some((await api.createUpload({ body: { content_type: "text/csv" } })).data);
  const stored = await send(upload, table(columns, rows));
  const submitted = some((await api.submitJob({ body: { model: "diabetes", input_uri: upload.input_uri } })).data);
  const path = { job_id: submitted.id };
  const job = await until(
    async () => some((await api.getJob({ path })).data),
    (it) => it.completed_at !== null,
  );
  const result = some((await api.getJobResult({ path })).data) as api.JobResult;
  const refused = some((await api.predict({ path: { model: "none" }, body: { instances: [1] } })).error);
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
    refused: some("error" in refused ? refused.error.code : undefined),
  });
}

main();
