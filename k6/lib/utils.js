// Random UUIDs (version 4, RFC 9562), with the name that k6's utility library gives them.

export function uuidv4() {
  return crypto.randomUUID();
}
