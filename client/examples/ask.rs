//! The whole library in ten lines: `cargo run -p infernet-client --example ask -- ws://127.0.0.1:7777 "Hello"`.

use infernet_client::{Client, Error, Options, Request};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let relay = arguments
        .next()
        .unwrap_or_else(|| "ws://127.0.0.1:7777".into());
    let question = arguments.next().unwrap_or_else(|| "Hello".into());

    let client = Client::connect(Options::new([relay])).await?;
    let request = Request::chat("SmolLM2-135M-Instruct", question);
    let mut answer = client.submit(request).await?;
    while let Some(text) = answer.next().await? {
        print!("{text}");
    }
    let summary = answer.finish().await?;
    println!(
        "\n({} tokens from {})",
        summary.output_tokens, summary.provider_name
    );
    client.close().await;
    Ok(())
}
