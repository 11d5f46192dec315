// Reads an AsyncAPI document from standard input and tells AsyncAPI's own findings as JSON.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { diagnostics } = await new Parser().parse(readFileSync(0, "utf8"));
const findings = diagnostics.map(({ severity, code, path, message }) => ({
  severity,
  text: `${path.join(".")}: ${message} (${code})`,
}));
console.log(JSON.stringify(findings));
