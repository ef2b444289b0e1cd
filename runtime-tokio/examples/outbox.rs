//! Publishes from a transaction of its own: what is to be published is written beside what is
//! changed, and leaves the table only with the node's receipt.
//!
//! A crash after the receipt publishes again, under the same id and name, and the node answers
//! that it knows it (`duplicate`).
//!
//! ```text
//! cargo run -p slipstream-tokio --example outbox -- ws://127.0.0.1:7400/ shop.db 19.90
//! ```

use std::error::Error;

use rusqlite::{Connection, params};
use slipstream_tokio::client::{Client, ClientOptions, Publication, Publisher};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, amount TEXT NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, value TEXT NOT NULL,
        message_id TEXT NOT NULL DEFAULT ('outbox-' || lower(hex(randomblob(16))))
    ) STRICT;
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or("ws://127.0.0.1:7400/".into());
    let mut shop = Connection::open(args.next().unwrap_or("shop.db".into()))?;
    shop.execute_batch(TABLES)?;
    for amount in args {
        order(&mut shop, &amount)?;
    }

    let node = Client::connect(&url, ClientOptions::default()).await?;
    let publisher = node.publisher("shop-outbox").await?;
    while drain(&shop, &publisher).await? > 0 {}
    publisher.close().await;
    Ok(())
}

/// Takes an order: it is there with the message that tells of it, or not at all.
fn order(shop: &mut Connection, amount: &str) -> rusqlite::Result<()> {
    let transaction = shop.transaction()?;
    transaction.execute("INSERT INTO orders (amount) VALUES (?1)", [amount])?;
    let key = format!("order:{}", transaction.last_insert_rowid());
    let value = serde_json::json!({ "amount": amount }).to_string();
    transaction.execute("INSERT INTO outbox (key, value) VALUES (?1, ?2)", [key, value])?;
    transaction.commit()
}

/// Publishes the oldest of what is there. Returns how many.
async fn drain(shop: &Connection, publisher: &Publisher) -> Result<usize, Box<dyn Error>> {
    let mut oldest =
        shop.prepare("SELECT id, message_id, key, value FROM outbox ORDER BY id LIMIT 1000")?;
    let rows =
        oldest.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let rows: Vec<(i64, String, String, String)> = rows.collect::<Result<_, _>>()?;

    let mut receipts = Vec::new();
    for (id, message_id, key, value) in rows {
        let message = Publication::set(key, value).with_id(message_id);
        receipts.push((id, publisher.send(message).await?));
    }
    let count = receipts.len();
    for (id, receipt) in receipts {
        let receipt = receipt.await?;
        println!("{} is durable{}", receipt.id, if receipt.duplicate { ", again" } else { "" });
        shop.execute("DELETE FROM outbox WHERE id = ?1", params![id])?;
    }
    Ok(count)
}
