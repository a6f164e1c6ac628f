//! Two bare ldk-node nodes with a channel between them, in a process of their own: `wallet/examples/bare_payments.rs`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use infernet_tests::wallet_example;

use super::Round;

/// The process; it ends with this value.
pub struct Bare {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Bare {
    pub fn start() -> Self {
        let mut process = Command::new(wallet_example("bare_payments"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let mut bare = Self {
            process,
            orders,
            answers,
        };
        assert_eq!(bare.answer(), "ready");
        bare
    }

    /// Makes one payment.
    pub fn pay(&mut self) -> Round {
        writeln!(self.orders.as_mut().unwrap()).unwrap();
        let answer = self.answer();
        let (with_invoice, payment) = answer.split_once(' ').expect("two numbers");
        let ms = |micros: &str| micros.parse::<f64>().unwrap() / 1_000.0;
        Round {
            from_need: ms(with_invoice),
            from_invoice: ms(payment),
        }
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // It ends with its input.
        self.orders = None;
        let _ = self.process.wait();
    }
}
