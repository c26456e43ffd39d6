// What each client does, and reports: the test compares the reports.
export const url = process.env.MODELYARD_URL!;
export const key = process.env.MODELYARD_KEY!;
export const rows: number[][] = JSON.parse(process.env.MODELYARD_ROWS!);

export type Report = {
  models: string[];
  prediction: number | null;
  badRow: number | undefined;
  badField: string | undefined;
  features: string[];
  method: string;
  stored: boolean;
  status: string;
  results: number;
  refused: string;
};

export function table(columns: string[], lines: number[][]): string {
  return [columns, ...lines].map((line) => line.join(",")).join("\n");
}

/** Ask again until `done`; jobs of a few rows take less than a second. */
export async function until<T>(ask: () => Promise<T>, done: (it: T) => boolean): Promise<T> {
  for (const end = Date.now() + 60_000; ; ) {
    const answer = await ask();
    if (done(answer)) return answer;
    if (Date.now() > end) throw new Error(`not done: ${JSON.stringify(answer)}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Take what a client says may be absent, and fail where it is. */
export function some<T>(value: T | undefined | null, what: unknown = "nothing"): T {
  if (value === undefined || value === null) throw new Error(JSON.stringify(what));
  return value;
}

/** Send what was announced, without a key; true if all of it was stored. */
export async function send(
  upload: { upload_url: string; content_type: string },
  body: string,
): Promise<boolean> {
  const answer = await fetch(upload.upload_url, {
    method: "PUT",
    headers: { "Content-Type": upload.content_type },
    body,
  });
  if (!answer.ok) throw new Error(await answer.text());
  return ((await answer.json()) as { bytes: number }).bytes === body.length;
}

export function tell(report: Report): void {
  console.log(JSON.stringify(report));
}
