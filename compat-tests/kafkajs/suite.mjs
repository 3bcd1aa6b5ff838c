// kafkajs: gzip, groups, offsets, idempotence and the admin client.

import { createRequire } from 'node:module'
import kafkajs from 'kafkajs'
import { baseTimestamp, check, compare, PARTITIONS, recordSet, STEP_MS, Suite, until, whole, within } from './compat.mjs'

const { CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = kafkajs
const version = createRequire(import.meta.url)('kafkajs/package.json').version
const suite = new Suite('kafkajs', version)
const kafka = new Kafka({
  clientId: 'compat',
  brokers: suite.brokers,
  logLevel: logLevel.NOTHING,
  requestTimeout: 20_000,
  retry: { retries: 4 }
})
const admin = kafka.admin()
const baseMs = baseTimestamp()
const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP }
const groupTopic = suite.name('grouped')
const resumeTopic = suite.name('resume')
const idempotentTopic = suite.name('idempotent')
const group = suite.name('group')
const sent = {}

async function produce(topic, records, compression, settings = {}) {
  const producer = kafka.producer({ allowAutoTopicCreation: false, ...settings })
  await producer.connect()
  try {
    // Headers are a map; a repeated name is a list.
    const headersOf = headers =>
      headers.reduce((map, [name, data]) => ({ ...map, [name]: name in map ? [map[name], data].flat() : data }), {})
    // The large record alone would fill a request, so it is sent by itself.
    const isLarge = record => record.value?.length > 100_000
    const at = records.findIndex(isLarge)
    const batches = at < 0 ? [records] : [records.slice(0, at), [records[at]], records.slice(at + 1)]
    for (const batch of batches) {
      const messages = batch.map(record => ({
        key: record.key,
        value: record.value,
        partition: record.partition,
        headers: headersOf(record.headers),
        timestamp: String(record.timestamp)
      }))
      const answers = await within('acknowledgements', producer.send({ topic, messages, compression, acks: -1 }))
      check(
        answers.every(answer => answer.errorCode === 0),
        JSON.stringify(answers)
      )
    }
  } finally {
    await producer.disconnect()
  }
}

function toRecord(partition, message) {
  const headers = Object.entries(message.headers ?? {}).flatMap(([name, data]) =>
    [data].flat().map(one => [name, Buffer.from(one)])
  )
  return { partition, key: message.key, value: message.value, headers, timestamp: Number(message.timestamp) }
}

/** Runs a member of `groupId` over `topic`; `seen` fills, `assigned` follows its assignment. */
async function member(groupId, topic) {
  const consumer = kafka.consumer({
    groupId,
    sessionTimeout: 10_000,
    heartbeatInterval: 300,
    rebalanceTimeout: 10_000,
    maxWaitTimeInMs: 200,
    maxBytesPerPartition: 2_000_000,
    retry: { retries: 4 }
  })
  const state = { consumer, seen: [], assigned: [], crashed: null }
  consumer.on(consumer.events.GROUP_JOIN, event => {
    state.assigned = event.payload.memberAssignment[topic] ?? []
  })
  consumer.on(consumer.events.CRASH, event => {
    // It starts again by itself where a connection was the reason.
    if (!event.payload.restart) state.crashed = event.payload.error
  })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message }) => {
      state.seen.push({ ...toRecord(partition, message), offset: message.offset })
    }
  })
  return state
}

async function records(state, count) {
  await until(`${count} records`, () => {
    if (state.crashed) throw state.crashed
    return state.seen.length >= count
  })
  return state.seen
}

await admin.connect()

await suite.step('create_topic', async () => {
  const topics = [
    ...Object.keys(codecs).map(codec => [suite.name(codec), PARTITIONS]),
    [idempotentTopic, PARTITIONS],
    [groupTopic, 4],
    [resumeTopic, 1]
  ]
  const created = await admin.createTopics({
    waitForLeaders: true,
    topics: topics.map(([topic, numPartitions]) => ({
      topic,
      numPartitions,
      replicationFactor: suite.nodes,
      configEntries: [{ name: 'retention.ms', value: '-1' }]
    }))
  })
  check(created, 'createTopics answered false')
})

for (const [codec, compression] of Object.entries(codecs)) {
  sent[codec] = recordSet(codec, baseMs)
  await suite.step(`produce.${codec}`, () => produce(suite.name(codec), sent[codec], compression))
  if (suite.failed(`produce.${codec}`, `consume.${codec}`)) continue
  await suite.step(`consume.${codec}`, async () => {
    const state = await member(suite.name(`reader-${codec}`), suite.name(codec))
    try {
      compare(sent[codec], await records(state, sent[codec].length))
    } finally {
      await state.consumer.disconnect()
    }
  })
}
for (const codec of ['snappy', 'lz4', 'zstd']) suite.lacks(`produce.${codec}`, 'only gzip is built in')

await suite.step('offsets_by_time', async () => {
  const partition0 = sent.none.filter(record => record.partition === 0)
  const offsets = await admin.fetchTopicOffsets(suite.name('none'))
  const first = offsets.find(entry => entry.partition === 0)
  check(first.low === '0' && first.high === String(partition0.length), JSON.stringify(first))
  for (const timestamp of [partition0[5].timestamp, partition0[5].timestamp - 1]) {
    const found = (await admin.fetchTopicOffsetsByTimestamp(suite.name('none'), timestamp)).find(
      entry => entry.partition === 0
    )
    check(found.offset === '5', JSON.stringify(found))
  }
})

await suite.step('idempotent', async () => {
  const set = recordSet('idempotent', baseMs)
  await produce(idempotentTopic, set, CompressionTypes.GZIP, { idempotent: true, maxInFlightRequests: 1 })
  const state = await member(suite.name('reader-idempotent'), idempotentTopic)
  try {
    compare(set, await records(state, set.length))
  } finally {
    await state.consumer.disconnect()
  }
})

await suite.step('group.rebalance', async () => {
  const groupId = suite.name('rebalance')
  const one = await member(groupId, groupTopic)
  const two = await member(groupId, groupTopic)
  const balanced = () => {
    if (one.crashed ?? two.crashed) throw one.crashed ?? two.crashed
    return one.assigned.length > 0 && two.assigned.length > 0 && one.assigned.length + two.assigned.length === 4
  }
  try {
    await until('both members own partitions', balanced)
    await two.consumer.disconnect()
    await until('the remaining member owns all four', () => one.assigned.length === 4)
  } finally {
    await one.consumer.disconnect()
    await two.consumer.disconnect()
  }
})

await suite.step('group.resume', async () => {
  const set = Array.from({ length: 100 }, (_, index) => ({
    partition: 0,
    key: null,
    value: Buffer.from(String(index)),
    headers: [],
    timestamp: baseMs + index
  }))
  await produce(resumeTopic, set, CompressionTypes.None)
  const first = await member(group, resumeTopic)
  await records(first, 40)
  await first.consumer.commitOffsets([{ topic: resumeTopic, partition: 0, offset: '40', metadata: 'märk' }])
  await first.consumer.disconnect()
  const [committed] = await admin.fetchOffsets({ groupId: group, topics: [resumeTopic] })
  check(
    committed.partitions[0].offset === '40' && committed.partitions[0].metadata === 'märk',
    JSON.stringify(committed)
  )
  const second = await member(group, resumeTopic)
  try {
    const rest = await records(second, 60)
    check(
      rest.map(record => record.value.toString()).join() ===
        set
          .slice(40)
          .map(record => record.value.toString())
          .join(),
      `resumed at ${rest[0].value}`
    )
    await suite.step('describe.group', async () => {
      const {
        groups: [described]
      } = await admin.describeGroups([group])
      check(
        described.state === 'Stable' && described.members.length === 1 && described.errorCode === 0,
        JSON.stringify(described)
      )
      const { groups } = await admin.listGroups()
      check(
        groups.some(entry => entry.groupId === group && entry.protocolType === 'consumer'),
        'not listed'
      )
    })
  } finally {
    await second.consumer.disconnect()
  }
})

await suite.step('group.admin_offsets', async () => {
  await admin.setOffsets({ groupId: group, topic: resumeTopic, partitions: [{ partition: 0, offset: '7' }] })
  const [committed] = await admin.fetchOffsets({ groupId: group, topics: [resumeTopic] })
  check(committed.partitions[0].offset === '7', JSON.stringify(committed))
  await admin.deleteGroups([group])
  check(!(await admin.listGroups()).groups.some(entry => entry.groupId === group), 'still listed')
})

await suite.step('describe.topic', async () => {
  const {
    topics: [described]
  } = await admin.fetchTopicMetadata({ topics: [suite.name('none')] })
  check(described.partitions.length === PARTITIONS, JSON.stringify(described))
  await whole()
  const cluster = await admin.describeCluster()
  check(cluster.clusterId && cluster.brokers.length === suite.nodes, JSON.stringify(cluster))
})

await suite.step('describe.configs', async () => {
  const resource = { type: ConfigResourceTypes.TOPIC, name: suite.name('none') }
  const valueOf = async name => {
    const {
      resources: [described]
    } = await admin.describeConfigs({ includeSynonyms: true, resources: [resource] })
    return described.configEntries.find(entry => entry.configName === name).configValue
  }
  check((await valueOf('retention.ms')) === '-1', 'retention.ms')
  check((await valueOf('max.message.bytes')) === '1048588', 'max.message.bytes')
  // AlterConfigs replaces the whole set.
  await admin.alterConfigs({
    resources: [{ ...resource, configEntries: [{ name: 'segment.bytes', value: '1048576' }] }]
  })
  await until('the altered value', async () => (await valueOf('segment.bytes')) === '1048576')
  check((await valueOf('retention.ms')) !== '-1', 'AlterConfigs kept a key that was not named')
})

await suite.step('delete_records', async () => {
  await admin.deleteTopicRecords({ topic: suite.name('none'), partitions: [{ partition: 0, offset: '3' }] })
  const offsets = await admin.fetchTopicOffsets(suite.name('none'))
  check(offsets.find(entry => entry.partition === 0).low === '3', JSON.stringify(offsets))
})

await suite.step('create_partitions', async () => {
  await admin.createPartitions({ topicPartitions: [{ topic: suite.name('gzip'), count: PARTITIONS + 2 }] })
  await until(
    'the added partitions',
    async () =>
      (await admin.fetchTopicMetadata({ topics: [suite.name('gzip')] })).topics[0].partitions.length === PARTITIONS + 2
  )
})

await suite.step('delete_topic', async () => {
  const topics = [...Object.keys(codecs).map(codec => suite.name(codec)), idempotentTopic, groupTopic, resumeTopic]
  await admin.deleteTopics({ topics, timeout: STEP_MS })
  await until('the topics are gone', async () => {
    const left = await admin.listTopics()
    return !topics.some(topic => left.includes(topic))
  })
})

await within('disconnect', admin.disconnect()).catch(() => {})
suite.finish()
