// What both Node suites share: the record set, the comparison, the step list and its deadline.
//
// Not a client and not a test. Every wait has a deadline; a step that did not run is either `fail` or `lacks`; the
// process cannot outlive WATCHDOG_MS.

import { createHash, randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'

export const PARTITIONS = 3
export const STEP_MS = 40_000
const WATCHDOG_MS = 240_000
// Just below max.message.bytes (1,048,588), and incompressible.
const LARGE_BYTES = 1_040_000
const BATCH_RECORDS = 120

/** Bytes that look random but are the same for the same seed. */
function noise(seed, count) {
  const parts = []
  for (let index = 0, length = 0; length < count; index++, length += 32) {
    parts.push(createHash('sha256').update(`${seed}-${index}`).digest())
  }
  return Buffer.concat(parts).subarray(0, count)
}

/** An hour ago, so that retention by time never touches the records. */
export function baseTimestamp() {
  return (Math.floor(Date.now() / 1000) - 3600) * 1000
}

/**
 * Nulls, empties, binary headers, one large record and a batch of small ones, over all partitions.
 * Headers are lists of [name, Buffer]; `repeatedHeader` is off for clients whose headers are a map.
 */
export function recordSet(seed, baseMs, { repeatedHeader = true } = {}) {
  const bytes = text => Buffer.from(text)
  const many = [['a', bytes('1')], ...(repeatedHeader ? [['a', bytes('2')]] : []), ['empty', bytes('')]]
  const rows = [
    [bytes('key'), bytes('value'), [['trace', Buffer.from([0, 1, 254, 255])]]],
    [null, bytes('null key'), []],
    [bytes('null value'), null, []],
    [bytes('empty value'), bytes(''), []],
    [bytes(''), bytes('empty key'), []],
    [bytes('headers'), bytes('many'), many],
    [bytes('schlüssel-鍵'), bytes('wert-値-🪨'), [['ünicode', bytes('✓')]]],
    [bytes('large'), noise(seed, LARGE_BYTES), []]
  ]
  for (let index = 0; index < BATCH_RECORDS; index++) {
    const number = String(index).padStart(6, '0')
    rows.push([bytes(`key-${index % 7}`), bytes(`value-${number} ${'compressible '.repeat(8)}`), []])
  }
  return rows.map(([key, value, headers], index) => ({
    partition: index % PARTITIONS,
    key,
    value,
    headers,
    timestamp: baseMs + index * 10
  }))
}

function show(record) {
  const short = data => (data == null ? 'null' : `${data.subarray(0, 24).toString('latin1')}(${data.length})`)
  const headers = record.headers.map(([name, data]) => `${name}=${short(data)}`)
  return `p${record.partition} key=${short(record.key)} value=${short(record.value)} [${headers}] t=${record.timestamp}`
}

function same(left, right) {
  const equal = (a, b) => (a == null || b == null ? a == null && b == null : a.equals(b))
  return (
    equal(left.key, right.key) &&
    equal(left.value, right.value) &&
    left.timestamp === right.timestamp &&
    left.headers.length === right.headers.length &&
    left.headers.every(
      ([name, data], index) => name === right.headers[index][0] && equal(data, right.headers[index][1])
    )
  )
}

/** Throws unless each partition holds exactly the records sent to it, in order, unchanged. */
export function compare(sent, received) {
  for (let partition = 0; partition < PARTITIONS; partition++) {
    const want = sent.filter(record => record.partition === partition)
    const have = received.filter(record => record.partition === partition)
    for (let index = 0; index < Math.min(want.length, have.length); index++) {
      check(
        same(want[index], have[index]),
        `partition ${partition} record ${index}: sent ${show(want[index])}, received ${show(have[index])}`
      )
    }
    check(want.length === have.length, `partition ${partition}: sent ${want.length} records, received ${have.length}`)
  }
}

export function check(condition, message) {
  if (!condition) throw new Error(message)
}

/** Rejects when `promise` takes longer than a step may. */
export async function within(what, promise, limitMs = STEP_MS) {
  let timer
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`not reached within ${limitMs} ms: ${what}`)), limitMs)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** Asks again every few milliseconds until `attempt` answers something true. */
export async function until(what, attempt, limitMs = STEP_MS) {
  const limit = Date.now() + limitMs
  for (;;) {
    const result = await attempt()
    if (result) return result
    check(Date.now() < limit, `not reached within ${limitMs} ms: ${what}`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

/** Resolves when the runner kills no broker any more and all are back: before what is asked of a whole cluster. */
export async function whole() {
  const path = process.env.COMPAT_WHOLE
  if (path) await until('every broker is back', () => existsSync(path))
}

export class Suite {
  constructor(client, version) {
    this.client = client
    this.version = version
    this.bootstrap = process.env.BOOTSTRAP
    this.brokers = this.bootstrap.split(',')
    // Brokers of the cluster under test; with several, topics have as many replicas.
    this.nodes = Number(process.env.COMPAT_NODES ?? 1)
    this.prefix = `compat-${client}-${process.pid}-${randomBytes(4).toString('hex')}`
    this.steps = {}
    setTimeout(() => {
      this.steps.watchdog = `fail: the suite took longer than ${WATCHDOG_MS} ms`
      this.finish()
    }, WATCHDOG_MS).unref()
    console.log(`client ${client} ${version}`)
  }

  /** A topic, group or client id of this run only. */
  name(suffix) {
    return `${this.prefix}-${suffix}`
  }

  /** Runs one step; a failure is recorded and printed, and the suite goes on. */
  async step(name, body) {
    const started = Date.now()
    try {
      await within(`step ${name}`, body(), 2 * STEP_MS)
      this.steps[name] = 'pass'
      console.log(`  pass ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`)
    } catch (problem) {
      this.steps[name] = `fail: ${problem.name}: ${problem.message}`.slice(0, 400)
      console.log(`  FAIL ${name}: ${String(problem.stack).split('\n').slice(0, 6).join('\n    ')}`)
      for (const cause of problem.errors ?? []) console.log(`    because ${cause.name}: ${cause.message}`)
    }
  }

  /** Whether step `name` failed; if so, step `then` needs it and counts as failed too. */
  failed(name, then) {
    if (!(this.steps[name] ?? 'pass').startsWith('fail')) return false
    this.steps[then] = `fail: not run, ${name} failed`
    console.log(`  FAIL ${then}: not run, ${name} failed`)
    return true
  }

  /** Records that the client, not the broker, has no such feature. */
  lacks(name, reason) {
    this.steps[name] = 'lacks'
    console.log(`  lacks ${name}: ${reason}`)
  }

  /** Prints the line that the runner collects and leaves the process. */
  finish() {
    const failed = Object.values(this.steps).some(outcome => outcome.startsWith('fail'))
    const line = `COMPAT ${JSON.stringify({ client: this.client, version: this.version, steps: this.steps })}\n`
    process.stdout.write(line, () => process.exit(failed ? 1 : 0))
  }
}
