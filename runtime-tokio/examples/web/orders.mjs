// Publishes an order and takes all that come, acknowledging each, without any package.
//
//   node orders.mjs ws://127.0.0.1:7400/        Node.js 22; before: node --experimental-websocket
//
// A durable name: what is not acknowledged comes again. Ends after the order has come back.

const url = process.argv[2] ?? "ws://127.0.0.1:7400/";
const id = `order-${process.pid}`;
const open = (query) => new WebSocket(Object.assign(new URL(url), { search: query }));

const receiver = open("client=orders-mjs&keys=order:");
receiver.onmessage = ({ data }) => {
  const frame = JSON.parse(data);
  if (frame.type === "SK") {
    console.log(`${frame.key} = ${JSON.stringify(frame.value)} from ${frame.originInstanceId}`);
    receiver.send(JSON.stringify({ type: "ACK", deliveryId: frame.deliveryId }));
    if (frame.messageId === id) receiver.close();
  }
};

const publisher = open("client=orders-mjs-publisher&keys=");
publisher.onmessage = ({ data }) => {
  const frame = JSON.parse(data);
  if (frame.type === "WELCOME") {
    const order = { type: "SK", messageId: id, key: `order:${process.pid}`, value: { amount: 1 } };
    publisher.send(JSON.stringify(order));
  } else if (frame.type === "ACK") {
    console.log(`${frame.messageId} is ${frame.level}`);
    publisher.close();
  } else if (frame.type === "ERR") {
    console.error(`${frame.code}: ${frame.message}`);
    process.exit(1);
  }
};

for (const socket of [receiver, publisher]) {
  socket.onerror = () => { console.error(`cannot reach ${url}`); process.exit(1); };
  socket.onclose = ({ code, reason }) => {
    if (code >= 4400) { console.error(`closed: ${code} ${reason}`); process.exit(1); }
  };
}
