//! Opening a group: its lines are fetched, read and measured before anything else.

use std::sync::Arc;
use std::time::Duration;

use infernet_node::clock;
use infernet_protocol::batch::{BlobKey, Group, Lines};
use infernet_protocol::bounds::MAX_GROUPS;
use infernet_protocol::job::Millis;
use infernet_protocol::payload::Payload;
use infernet_protocol::seal::blob;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::group::{self, State};
use crate::home;
use crate::house::House;
use crate::open::Open;
use crate::outcomes::Folder;
use crate::shards::Measure;
use crate::store;

/// How long the lines' blob is waited for.
const FETCH_PATIENCE: Duration = Duration::from_secs(60);

/// Tokens that the answers of one group may have: they have to fit in a blob, some
/// fourteen bytes each.
const MAX_OUTPUT_TOKENS: u64 = 1_000_000;

/// Opens a group and begins it; else says why not.
///
/// # Errors
/// A store or a disk that refuses.
pub(super) async fn open(
    house: &Arc<House>,
    order: Arc<Open>,
    asked: Group,
    turn: &Mutex<()>,
) -> Result<Result<(), String>, store::Error> {
    if let Some(reason) = no_room(house, &order, &asked).await? {
        return Ok(Err(reason));
    }
    let plain = match fetch(house, &asked).await {
        Ok(plain) => plain,
        Err(reason) => return Ok(Err(reason)),
    };
    let folder = Folder::of(&home::work(&house.options.home), &order.id, asked.number);
    let (read, size, task) = (folder.clone(), asked.size, order.quote.task);
    let reading = tokio::task::spawn_blocking(move || {
        let lines = Lines::from_bytes(&plain).map_err(|error| error.to_string())?;
        if lines.len() as u64 != size.lines {
            return Err("it has not as many lines as it says".to_owned());
        }
        let measures = lines.iter().filter_map(|line| Measure::of(line, task));
        let (mut input, mut output) = (0_u64, 0_u64);
        for measure in measures {
            input += u64::from(measure.limits.input_tokens);
            output += u64::from(measure.limits.output_tokens);
        }
        if input > size.input_tokens || output > size.output_tokens {
            return Err("its lines are longer than it says".to_owned());
        }
        read.keep_lines(&plain).map_err(|error| error.to_string())
    });
    if let Err(reason) = reading.await.map_err(std::io::Error::other)? {
        return Ok(Err(format!("the group's lines: {reason}")));
    }
    // Others may have been opened while this one was fetched, or the order stopped.
    let _turn = turn.lock().await;
    let row = house.store.order(&order.id).await?;
    let order = row.as_ref().and_then(Open::of).map_or(order, Arc::new);
    if let Some(reason) = no_room(house, &order, &asked).await? {
        folder.remove();
        return Ok(Err(reason));
    }
    let state = match order.is_paid() {
        true => State::Unpaid,
        false => State::Working,
    };
    let token = BlobKey::from_bytes(rand::random());
    let now = clock::now();
    let row = house
        .store
        .open_group(&order.id, &asked, state, &token, now)
        .await?;
    group::drive(house, order, row);
    Ok(Ok(()))
}

/// Why no such group can be begun now.
async fn no_room(
    house: &House,
    order: &Open,
    asked: &Group,
) -> Result<Option<String>, store::Error> {
    let limits = &house.options.limits;
    let margin_ms = u64::try_from(limits.margin.as_millis()).unwrap_or(u64::MAX);
    let left = order.deadline_ms().since(Millis(clock::unix_ms()));
    let refused = |reason: &str| Ok(Some(reason.to_owned()));
    if order.is_closed || order.is_stopped {
        return refused("nothing more is taken of this order");
    }
    if house.shutdown.is_soft() {
        return refused("this aggregator is stopping; ask again when it is back");
    }
    // Short orders have short margins.
    if left <= margin_ms.min(5_000) {
        return refused("the deadline is too near");
    }
    let under_way = house
        .groups()
        .keys()
        .filter(|(of, _)| *of == order.id)
        .count();
    if under_way >= limits.groups_at_once as usize {
        return refused("too many groups are under way: wait until one is done");
    }
    let store = &house.store;
    let given = store.given_lines(&order.id).await?;
    if given + asked.size.lines > order.quote.size.lines {
        return refused("these are more lines than were ordered");
    }
    if store.count_groups(&order.id).await? >= u64::from(MAX_GROUPS) {
        return refused("these are more groups than an order may have");
    }
    if asked.size.output_tokens > MAX_OUTPUT_TOKENS {
        return Ok(Some(format!(
            "its answers may have {} tokens, and a group's at most {MAX_OUTPUT_TOKENS}: give fewer lines at a time",
            asked.size.output_tokens
        )));
    }
    let most = order.most_for(&asked.size);
    let charged = store.settled(&order.id).await?.charge.total();
    let in_all = most.and_then(|most| most.checked_add(charged));
    if order.is_paid() && in_all.is_none_or(|in_all| in_all > order.quote.most_msat) {
        return refused("with it the batch may cost more than was quoted");
    }
    match order.is_paid() && most.is_none_or(|most| most > house.options.max_hold) {
        true => Ok(Some(format!(
            "it may cost more than is held for one group ({}): give fewer lines at a time",
            house.options.max_hold
        ))),
        false => Ok(None),
    }
}

/// A group's lines, as they came.
async fn fetch(house: &House, asked: &Group) -> Result<Vec<u8>, String> {
    let fetched = timeout(FETCH_PATIENCE, house.blobs.get(&asked.input)).await;
    let closed = match fetched {
        Ok(Ok(closed)) => closed,
        Ok(Err(error)) => return Err(format!("its lines cannot be fetched: {error}")),
        Err(_) => return Err("its lines cannot be fetched: the server is too slow".to_owned()),
    };
    let key = asked.key;
    let opening = tokio::task::spawn_blocking(move || blob::decrypt(key.as_bytes(), closed));
    match opening.await {
        Ok(Ok(plain)) => Ok(plain),
        Ok(Err(_)) | Err(_) => Err("its lines cannot be opened with the key".to_owned()),
    }
}
