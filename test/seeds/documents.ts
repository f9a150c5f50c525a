// The requests of the IoTFlow documents as they stand there, character by character. Nothing else is changed for a
// test than where the server is and which key it gave.

/** "💡 Usage Examples" and "Monitoring" of the README. */
export const readme = {
  health: 'curl http://localhost:5000/health',
  register: `curl -X POST http://localhost:5000/api/v1/devices/register \\
  -H "Content-Type: application/json" \\
  -d '{
    "name": "Smart Temperature Sensor 001",
    "description": "Living room environmental sensor",
    "device_type": "temperature_sensor",
    "location": "Living Room",
    "firmware_version": "1.2.3",
    "hardware_version": "v2.1"
  }'`,
  telemetry: `curl -X POST http://localhost:5000/api/v1/devices/telemetry \\
  -H "X-API-Key: rnby0SIR2kF8mN3Q7vX9L1cE6tA5Y4pB" \\
  -H "Content-Type: application/json" \\
  -d '{
    "data": {
      "temperature": 23.5,
      "humidity": 65.2,
      "pressure": 1013.25,
      "battery_level": 87,
      "signal_strength": -52
    },
    "metadata": {
      "location": "Living Room",
      "sensor_status": "active"
    },
    "timestamp": "2025-07-02T14:30:00Z"
  }'`,
  latest: 'curl "http://localhost:5000/api/v1/telemetry/1/latest"',
  range: 'curl "http://localhost:5000/api/v1/telemetry/1?start_time=-1h&limit=100"',
  aggregated: 'curl "http://localhost:5000/api/v1/telemetry/1/aggregated?window=1h&start_time=-24h"',
  heartbeat: `curl -X POST http://localhost:5000/api/v1/devices/heartbeat \\
  -H "X-API-Key: rnby0SIR2kF8mN3Q7vX9L1cE6tA5Y4pB"`,
  status: 'curl http://localhost:5000/api/v1/telemetry/status',
  dashboard: 'curl http://localhost:5000/api/v1/admin/dashboard',
} as const;

/** "InfluxDB Integration for IoTFlow Connectivity Layer": its requests, its curl lines and the one of mosquitto. */
export const integration = {
  health: `GET /api/v1/influxdb/health
`,
  write: `POST /api/v1/influxdb/telemetry
Content-Type: application/json
X-API-Key: your-api-key

{
  "device_id": "esp32_001",
  "measurement": "temperature",
  "fields": {
    "value": 23.5,
    "humidity": 45.0
  },
  "tags": {
    "location": "office",
    "sensor_type": "dht22"
  },
  "timestamp": "2024-01-01T12:00:00Z"
}
`,
  batch: `POST /api/v1/influxdb/telemetry/batch
Content-Type: application/json
X-API-Key: your-api-key

{
  "points": [
    {
      "device_id": "esp32_001",
      "measurement": "temperature",
      "fields": {"value": 23.5},
      "tags": {"location": "office"}
    },
    {
      "device_id": "esp32_002",
      "measurement": "humidity", 
      "fields": {"value": 55.0},
      "tags": {"location": "kitchen"}
    }
  ]
}
`,
  data: `GET /api/v1/influxdb/device/{device_id}/data?start=-1h&stop=now()&measurement=temperature
X-API-Key: your-api-key
`,
  latest: `GET /api/v1/influxdb/device/{device_id}/latest?measurement=temperature
X-API-Key: your-api-key
`,
  delete: `DELETE /api/v1/influxdb/device/{device_id}/data?start=2024-01-01T00:00:00Z&stop=2024-01-02T00:00:00Z
X-API-Key: your-api-key
`,
  telemetry: `POST /api/v1/devices/telemetry
Content-Type: application/json
X-API-Key: device-api-key

{
  "data": {
    "temperature": 24.5,
    "humidity": 60.0,
    "battery_level": 85.0
  },
  "type": "environmental",
  "metadata": {
    "location": "sensor_room_1"
  }
}
`,
  curlHealth: `curl -X GET "http://localhost:5000/api/v1/influxdb/health" \\
  -H "X-API-Key: your-api-key"`,
  curlTelemetry: `curl -X POST "http://localhost:5000/api/v1/devices/telemetry" \\
  -H "Content-Type: application/json" \\
  -H "X-API-Key: device-api-key" \\
  -d '{
    "data": {"temperature": 25.0, "humidity": 60.0},
    "type": "environmental"
  }'`,
  mosquitto: `mosquitto_pub -h localhost -p 1883 \\
  -u device_001 -P device_password \\
  -t "iotflow/devices/esp32_001/telemetry/temperature" \\
  -m '{"temperature": 25.5, "humidity": 60.0, "timestamp": "2024-01-01T12:00:00Z"}'`,
} as const;
