// Every bound of the broker, with its default. What a bound refuses is counted in `MqttSource.stats()`.

export interface MqttLimits {
  /** A CONNECT packet, bytes on the wire. Nothing else is read from a stranger. */
  readonly connectBytes: number;
  /** From accepting the socket (TLS handshake included) to a complete CONNECT. */
  readonly connectTimeoutMs: number;
  /** Any packet, bytes on the wire; told to MQTT 5 clients as Maximum Packet Size. */
  readonly packetBytes: number;
  readonly sockets: number;
  readonly socketsPerAddress: number;
  /** The simulator, Home Assistant and a bench share one address: the loopback has its own limit. */
  readonly socketsPerLoopback: number;
  /** Sockets at once that have not shown valid credentials yet. */
  readonly unauthenticated: number;
  readonly unauthenticatedLoopback: number;
  readonly topicBytes: number;
  readonly topicLevels: number;
  readonly clientIdBytes: number;
  /** MQTT 5 is told (Server Keep Alive); 3.1.1 clients that ask for more or none are held to it. Seconds. */
  readonly keepaliveS: number;
  /** Unsent bytes of one connection, from where its reader counts as stuck. */
  readonly clientQueueBytes: number;
  /** QoS 2 messages of one client between PUBLISH and PUBREL. */
  readonly inflightInbound: number;
  readonly subscriptionsPerClient: number;
  readonly sessions: number;
  readonly sessionExpiryS: number;
  readonly sessionQueueMessages: number;
  readonly sessionQueueBytes: number;
  /** All sessions together. */
  readonly queueBytes: number;
  readonly retainedBytes: number;
  readonly retained: number;
  readonly retainedPerDevice: number;
  /** Below `homeassistant/`, all accounts together: discovery must not take the place of the devices' status. */
  readonly retainedHomeAssistant: number;
  /** How long an acknowledgement may wait for the journal before its connection is closed. */
  readonly ackTimeoutMs: number;
}

export const defaultLimits: MqttLimits = {
  connectBytes: 4096,
  connectTimeoutMs: 5000,
  packetBytes: 65_536,
  sockets: 200,
  socketsPerAddress: 20,
  socketsPerLoopback: 200,
  unauthenticated: 10,
  unauthenticatedLoopback: 50,
  topicBytes: 256,
  topicLevels: 16,
  clientIdBytes: 128,
  keepaliveS: 600,
  clientQueueBytes: 1024 * 1024,
  inflightInbound: 1024,
  subscriptionsPerClient: 100,
  sessions: 100,
  sessionExpiryS: 7 * 86_400,
  sessionQueueMessages: 1000,
  sessionQueueBytes: 1024 * 1024,
  queueBytes: 16 * 1024 * 1024,
  retainedBytes: 4096,
  retained: 2000,
  retainedPerDevice: 20,
  retainedHomeAssistant: 1000,
  // An ESP32 drops a record from its outbox after 30 s without an acknowledgement.
  ackTimeoutMs: 20_000,
};
