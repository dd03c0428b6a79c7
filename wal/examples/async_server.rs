//! A counter that clients of a TCP server share, with tokio. The library blocks, so each
//! request runs on the pool of blocking threads, with a deadline: one that waits for other
//! writers, or for a change by any process, ends by it.
//!
//! ```sh
//! cargo run -p wal --example async_server
//! ```
//!
//! | request | answer |
//! |---|---|
//! | `add N` | the sum, once it is durable; `busy` if `WRITE` was not free within the deadline |
//! | `get` | the sum |
//! | `wait N` | the sum, once it is `N` or more; `late` if it was not within the deadline |

#![allow(clippy::print_stdout)] // It is a program, and tells what came of it.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use std::{env, thread};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::task::{JoinSet, spawn_blocking};
use wal::{BusyHandler, Cancel, Database, PageNo, Pages};

type Failure = Box<dyn Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

/// How long a request may take. A server sets it below the timeout of its clients.
const DEADLINE: Duration = Duration::from_millis(500);
const CLIENTS: u64 = 8;
const REQUESTS: u64 = 20;

/// Where the sum stands in page 1, behind the library's header.
const SUM: std::ops::Range<usize> = 64..72;

fn main() -> Result<()> {
    let directory = env::temp_dir().join(format!("wal-async-server-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let store = Database::open_pages(directory.join("store"))?;
    let mut runtime = Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build()?;
    runtime.block_on(serve_clients(store.clone()))?;
    drop(runtime);
    let sum = sum(&store.begin_read()?)?;
    assert_eq!(sum, CLIENTS * REQUESTS, "each request was answered once");
    println!("{CLIENTS} clients, a sum of {sum}");
    store.close()?;
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

fn sum(pages: &impl Pages) -> Result<u64> {
    let bytes = pages.page(PageNo::ONE)?[SUM].try_into()?;
    Ok(u64::from_le_bytes(bytes))
}

fn add(store: &Database, count: u64, busy: BusyHandler) -> Result<u64> {
    // The closure runs on one thread, as everything between its begin and its commit should:
    // no `await` holds `WRITE`.
    store.write_with(busy, |tx| {
        let sum = sum(tx)? + count;
        tx.page_mut(PageNo::ONE)?[SUM].copy_from_slice(&sum.to_le_bytes());
        Ok(sum)
    })
}

/// Waits until the sum is `least`, whichever process adds to it.
fn wait(store: &Database, least: u64, deadline: Instant, cancel: &Cancel) -> Result<Option<u64>> {
    loop {
        let read = store.begin_read()?;
        let sum = sum(&read)?;
        if sum >= least {
            return Ok(Some(sum));
        }
        let seen = *read.snapshot();
        // A reader that waits must not keep its snapshot: the log could not be restarted.
        drop(read);
        let left = deadline.saturating_duration_since(Instant::now());
        let until = BusyHandler::timeout(left).cancelled_by(cancel);
        if !store.wait_for_change_with(&seen, until)? {
            return Ok(None);
        }
    }
}

/// Answers one request on a blocking thread.
fn answer(store: &Database, request: &str, deadline: Instant, cancel: &Cancel) -> Result<String> {
    let mut words = request.split_whitespace();
    let word = words.next().unwrap_or_default();
    let mut count = || Ok::<u64, Failure>(words.next().unwrap_or_default().parse()?);
    match word {
        "add" => {
            let left = deadline.saturating_duration_since(Instant::now());
            let busy = BusyHandler::timeout(left).cancelled_by(cancel);
            match add(store, count()?, busy) {
                Ok(sum) => Ok(sum.to_string()),
                Err(e) if e.downcast_ref().is_some_and(wal::Error::is_busy) => Ok("busy".into()),
                Err(e) => Err(e),
            }
        }
        "get" => Ok(sum(&store.begin_read()?)?.to_string()),
        "wait" => {
            let sum = wait(store, count()?, deadline, cancel)?;
            Ok(sum.map_or("late".to_owned(), |sum| sum.to_string()))
        }
        _ => Ok("what?".to_owned()),
    }
}

/// Serves one client until it goes.
async fn serve(store: Database, client: TcpStream) -> Result<()> {
    let (input, mut output) = client.into_split();
    let mut requests = BufReader::new(input).lines();
    while let Some(request) = requests.next_line().await? {
        let (store, deadline) = (store.clone(), Instant::now() + DEADLINE);
        // Dropped with this task, it ends what still waits on the blocking thread.
        let cancel = CancelOnDrop(Cancel::new());
        let switch = cancel.0.clone();
        let answered = spawn_blocking(move || answer(&store, &request, deadline, &switch));
        let answer = answered.await??;
        output.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}

struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// A server, and the clients that check it.
async fn serve_clients(store: Database) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let served = store.clone();
    let server = tokio::spawn(async move {
        let mut clients = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            clients.spawn(serve(served.clone(), client));
        }
    });
    busy_is_told_by_the_deadline(&store, address).await?;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(async move {
            let mut client = Client::connect(address).await?;
            let mut last = 0;
            for _ in 0..REQUESTS {
                let sum = client.add_one().await?;
                assert!(sum > last, "the sum grows");
                last = sum;
            }
            Ok::<_, Failure>(())
        });
    }
    // It waits for the others, and is woken by their last commit.
    let mut watcher = Client::connect(address).await?;
    let all = format!("wait {}", CLIENTS * REQUESTS);
    while watcher.ask(&all).await? == "late" {}
    while let Some(client) = clients.join_next().await {
        client??;
    }
    assert_eq!(watcher.ask("wait 1000000").await?, "late");
    server.abort();
    Ok(())
}

/// While another thread writes, a request waits up to its deadline and no longer.
async fn busy_is_told_by_the_deadline(store: &Database, address: SocketAddr) -> Result<()> {
    let mut client = Client::connect(address).await?;
    let (writing, (begun, is_begun), (ends, end)) = (store.clone(), channel(), channel::<()>());
    let writer = thread::spawn(move || {
        let _write = writing.begin_write()?;
        begun.send(()).ok();
        end.recv().ok();
        Ok::<_, wal::Error>(())
    });
    is_begun.recv()?;
    let began = Instant::now();
    assert_eq!(client.ask("add 1").await?, "busy");
    assert!(began.elapsed() >= DEADLINE, "it did not wait");
    assert_eq!(
        client.ask("get").await?,
        "0",
        "a reader waits for no writer"
    );
    drop(ends);
    Ok(writer.join().map_err(|_| "the writer panicked")??)
}

struct Client {
    answers: tokio::io::Lines<BufReader<tokio::net::tcp::OwnedReadHalf>>,
    requests: tokio::net::tcp::OwnedWriteHalf,
}

impl Client {
    async fn connect(address: SocketAddr) -> Result<Self> {
        let (input, requests) = TcpStream::connect(address).await?.into_split();
        let answers = BufReader::new(input).lines();
        Ok(Client { answers, requests })
    }

    /// Tries again as long as the server is busy, which has added nothing then.
    async fn add_one(&mut self) -> Result<u64> {
        loop {
            match self.ask("add 1").await?.as_str() {
                "busy" => {}
                sum => return Ok(sum.parse()?),
            }
        }
    }

    async fn ask(&mut self, request: &str) -> Result<String> {
        self.requests
            .write_all(format!("{request}\n").as_bytes())
            .await?;
        let answer = self.answers.next_line().await?;
        Ok(answer.ok_or("the server has gone")?)
    }
}
