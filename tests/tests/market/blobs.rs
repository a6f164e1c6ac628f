//! Inputs and outputs that no event carries travel in blobs, over the relay's own port.

use infernet_tests::Market;

#[test]
fn a_long_question_and_a_long_answer_travel_in_blobs() {
    let market = Market::open().unwrap();
    // Few words, for an engine that counts these as tokens, and many bytes.
    let answer = vec!["w".repeat(100); 1_000].join(" ");
    let question = "q".repeat(300_000);
    let script = ["--scripted-text", &answer, "--scripted-speed", "100000"];
    let _provider = market.scripted_provider("alpha", &script).unwrap();
    let file = market.folder("buyer").join("question.txt");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, question).unwrap();
    let buyer = market.client("buyer");
    let file = file.to_str().unwrap();
    let asked = ["submit", "--json", "-n", "1500", "--file", file];
    let done = buyer.json(&asked).unwrap();
    assert_eq!(done["status"], "done");
    assert_eq!(done["attempts"], 1);
    assert_eq!(done["text"].as_str().unwrap().trim(), answer);

    let blobs = market.folder("relay").join("blobs");
    let kept: u64 = files(&blobs)
        .iter()
        .map(|file| file.metadata().unwrap().len())
        .sum();
    assert!(kept > 400_000, "the relay keeps {kept} bytes");
    let audit = buyer
        .run(&["audit", done["job"].as_str().unwrap()])
        .unwrap();
    assert!(audit.status.success(), "{}{}", audit.stdout, audit.stderr);
}

fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}
