//! A service whose node runs elsewhere: what it publishes and receives is the same as with a node
//! of its own (`embed`), but for the line that connects.
//!
//! ```text
//! cargo run -p slipstream-tokio --example client -- ws://127.0.0.1:7400/
//! ```

use std::error::Error;

use slipstream_tokio::client::{Client, ClientOptions, Filter, Publication, PublishError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).unwrap_or("ws://127.0.0.1:7400/".into());
    let node = Client::connect(&url, ClientOptions::default()).await?;

    // With a name, what is unanswered when the connection is lost is published again, once.
    let publisher = node.publisher("shop").await?;
    let order = Publication::set("order:1", r#"{"amount": 1.10}"#).with_id("order-1-paid");
    match publisher.publish(order).await {
        Ok(receipt) => println!("{} is durable", receipt.id),
        Err(PublishError::Refused(why)) if why.retryable => println!("later, perhaps: {why}"),
        Err(error) => return Err(error.into()),
    }

    let value = node.get("order:1").await?;
    println!("order:1 holds {}", value.value.as_deref().unwrap_or("nothing"));

    let mut orders = node.subscribe(Filter::named("shop-view").keys(["order:"])).await?;
    let order = orders.next().await.ok_or("the subscription has ended")??;
    println!("{} = {}", order.key(), order.value());
    order.ack();

    orders.close().await;
    publisher.close().await;
    Ok(())
}
