//! Modules are sold: tensors in, tensors out. The scripted one adds bytes up.

use infernet_engine::Fault;
use infernet_protocol::inference::{EndReason, Task};
use infernet_protocol::money::{Msat, Price};
use infernet_protocol::payload::{Decline, Product, Work};
use infernet_protocol::tensor::{Element, Tensor};

use super::buyer::Buyer;
use super::house::{Provider, Relay, quick};
use super::paying::{Market, check_receipt, paid, pay};

/// 10 msat for a token of input.
const PRICE: Price = Price {
    input_msat: 10_000_000,
    output_msat: 0,
};

fn numbers(data: &[u8]) -> Tensor {
    Tensor {
        name: "numbers".into(),
        dtype: Element::U8,
        shape: vec![data.len() as u64],
        data: data.to_vec(),
    }
}

fn work(tensor: Tensor) -> Work {
    Work::Tensors {
        inputs: vec![tensor],
    }
}

#[tokio::test]
async fn tensors_are_computed() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], quick(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let module = word.models.iter().find(|model| model.task == Task::Tensors);
    assert!(module.unwrap().interface.is_some());
    let draft = buyer.draft(&word, work(numbers(&[250, 4, 1, 2, 3])));
    let award = buyer.place(draft).await;
    let (result, product) = buyer.result(&award).await;
    let Product::Tensors { outputs } = product else {
        panic!("no tensors");
    };
    assert_eq!(outputs[0].data, 260_i64.to_le_bytes());
    // Five bytes are two tokens.
    let usage = result.usage;
    assert_eq!((usage.input_tokens, usage.output_tokens), (2, 0));
    assert_eq!(result.ended, EndReason::Stop);
}

#[tokio::test]
async fn tensors_that_the_module_does_not_take_are_declined() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], quick(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let good = numbers(&[1, 2]);
    for wrong in [
        numbers(&[]),
        Tensor {
            name: "letters".into(),
            ..good.clone()
        },
        Tensor {
            dtype: Element::I8,
            ..good.clone()
        },
        Tensor {
            shape: vec![2, 1],
            ..good
        },
    ] {
        let award = buyer.place(buyer.draft(&word, work(wrong))).await;
        assert_eq!(buyer.declined(award.id()).await, Decline::Input);
    }
}

#[tokio::test]
async fn tensors_are_charged_with_their_result() {
    let mut market = Market::open(PRICE, quick(), |_| {}).await;
    let draft = paid(&market.buyer, &market.word, work(numbers(&[9; 25])));
    let salt = draft.input.salt;
    let award = market.buyer.place(draft).await;
    let invoice = market.buyer.invoice(&award).await;
    pay(&market.purse, &invoice).await;
    let (result, product) = market.buyer.result(&award).await;
    assert!(matches!(product, Product::Tensors { outputs } if outputs.len() == 1));
    assert_eq!((result.usage.input_tokens, result.due_msat), (7, Msat(70)));
    let receipt = market.buyer.receipt(award.id()).await;
    check_receipt(&receipt, &award, &salt, Msat(70), &[invoice]);
}

#[tokio::test]
async fn tensors_that_never_came_cost_nothing() {
    let mut market = Market::open(PRICE, quick(), |_| {}).await;
    market.provider.engine.set_fault(Fault::FailAfter(0));
    let draft = paid(&market.buyer, &market.word, work(numbers(&[9; 25])));
    let award = market.buyer.place(draft).await;
    let invoice = market.buyer.invoice(&award).await;
    pay(&market.purse, &invoice).await;
    let (result, product) = market.buyer.result(&award).await;
    assert!(matches!(product, Product::Tensors { outputs } if outputs.is_empty()));
    let due = (result.ended, result.due_msat);
    assert_eq!(due, (EndReason::Failed, Msat::ZERO));
}
