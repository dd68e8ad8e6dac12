//! A crawler that fans out: so many requests at once, a time limit for each, and one for all.
//!
//! Run it without arguments: `cargo run --release --example crawler`. It crawls a site of its own, whose server is in
//! this file too: pages that take their time, pages that are missing, and pages that never answer.

mod options;

use std::collections::{BTreeMap, HashSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use strands::FiberGroup;
use strands::net::{TcpListener, TcpStream};
use strands::time::{Duration, Elapsed, Instant, timeout};

const HELP: &str = "\
Crawls a site that it serves itself, many pages at once.

usage: crawler [--pages N] [--limit N] [--request-ms N] [--total-ms N]

  --pages N       how large the site is (300)
  --limit N       how many requests are made at once (20)
  --request-ms N  how long one may take (200)
  --total-ms N    how long all may take (5000)
";

#[strands::main]
fn main() -> ExitCode {
    let defaults = [("--pages", 300), ("--limit", 20), ("--request-ms", 200), ("--total-ms", 5000)];
    let [pages, limit, request_ms, total_ms] = match options::read("crawler", HELP, defaults) {
        Ok(numbers) => numbers,
        Err(code) => return code,
    };
    let listener = match TcpListener::bind("127.0.0.1:0") {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("crawler: cannot serve: {error}");
            return ExitCode::FAILURE;
        }
    };
    let site = listener.local_addr().expect("a listener has an address");
    let server = strands::spawn(move || serve(&listener, pages));

    let start = Instant::now();
    let mut visits = Vec::new();
    let crawler =
        Crawler { site, limit: limit as usize, patience: Duration::from_millis(request_ms) };
    // Whatever is under way when the time is up is cancelled, and has ended when this returns.
    let end = timeout(Duration::from_millis(total_ms), || crawler.crawl(&mut visits));
    let took = start.elapsed();

    print!("{}", table(&visits));
    println!("{} pages in {:.2} s, {limit} at a time", visits.len(), took.as_secs_f64());
    if end == Err(Elapsed) {
        println!("The time was up before all pages were found.");
    }
    server.cancel();
    ExitCode::SUCCESS
}

struct Crawler {
    site: SocketAddr,
    limit: usize,
    /// How long a request may take.
    patience: Duration,
}

struct Visit {
    outcome: String,
    time: Duration,
    links: Vec<u64>,
}

impl Crawler {
    /// Follows all links from the first page on.
    fn crawl(&self, visits: &mut Vec<Visit>) {
        let group = FiberGroup::new().limit(self.limit);
        let mut known = HashSet::new();
        let mut links = vec![0];
        loop {
            for page in links.drain(..) {
                if known.insert(page) {
                    let (site, patience) = (self.site, self.patience);
                    group.spawn(move || visit(site, page, patience)); // Waits if there are `limit`.
                }
            }
            let Some(visit) = group.join_next() else { return };
            let visit = visit.expect("a visit has its errors as outcomes");
            links.extend(&visit.links);
            visits.push(visit);
        }
    }
}

fn visit(site: SocketAddr, page: u64, patience: Duration) -> Visit {
    let start = Instant::now();
    let (outcome, links) = match timeout(patience, || get(site, page)) {
        Ok(Ok((status, body))) => (status, links_in(&body)),
        Ok(Err(error)) => (error.to_string(), Vec::new()),
        Err(Elapsed) => ("no answer in time".into(), Vec::new()),
    };
    Visit { outcome, time: start.elapsed(), links }
}

/// A page's status and text.
fn get(site: SocketAddr, page: u64) -> io::Result<(String, String)> {
    let mut stream = TcpStream::connect(site)?;
    write!(stream, "GET /{page} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((head.trim_start_matches("HTTP/1.0 ").into(), body.into()))
}

fn links_in(body: &str) -> Vec<u64> {
    let links = body.split("href=\"/").skip(1);
    links.filter_map(|link| link.split('"').next()?.parse().ok()).collect()
}

// The site.

fn serve(listener: &TcpListener, pages: u64) {
    let answers = FiberGroup::new(); // They end with the server, also those who never answer.
    for stream in listener.incoming().flatten() {
        answers.spawn(move || answer(stream, pages));
        while answers.try_join_next().is_some() {}
    }
}

/// Page n links to pages 2n + 1 and 2n + 2, to the first and to one that is missing.
fn answer(mut stream: TcpStream, pages: u64) -> io::Result<()> {
    let mut lines = BufReader::new(&stream).lines();
    let request = lines.next().ok_or(io::ErrorKind::UnexpectedEof)??;
    lines.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
    let page = request.split(['/', ' ']).nth(2).and_then(|page| page.parse().ok()).unwrap_or(pages);
    strands::sleep(Duration::from_millis(page * 7 % 40));
    match page {
        _ if page >= pages => write!(stream, "HTTP/1.0 404 Not Found\r\n\r\n"),
        // What it links to is found by nobody.
        _ if page % 50 == 49 => loop {
            strands::thread::park();
        },
        _ => {
            let links =
                [2 * page + 1, 2 * page + 2, 0].map(|to| format!("<a href=\"/{to}\">{to}</a>"));
            write!(stream, "HTTP/1.0 200 OK\r\n\r\n{}", links.concat())
        }
    }
}

/// How often each outcome came, and how long it took.
fn table(visits: &[Visit]) -> String {
    let mut times = BTreeMap::<&str, Vec<Duration>>::new();
    for visit in visits {
        times.entry(&visit.outcome).or_default().push(visit.time);
    }
    let mut text = format!("{:<20} {:>6} {:>10} {:>10}\n", "outcome", "pages", "median", "slowest");
    for (outcome, mut times) in times {
        times.sort();
        let [median, slowest] = [times[times.len() / 2], times[times.len() - 1]]
            .map(|time| format!("{:.1} ms", time.as_secs_f64() * 1e3));
        text += &format!("{outcome:<20} {:>6} {median:>10} {slowest:>10}\n", times.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crawl(pages: u64, total: Duration) -> (Vec<Visit>, bool) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let site = listener.local_addr().unwrap();
        let server = strands::spawn(move || serve(&listener, pages));
        let mut visits = Vec::new();
        let crawler = Crawler { site, limit: 5, patience: Duration::from_millis(200) };
        let end = timeout(total, || crawler.crawl(&mut visits));
        assert!(strands::cancel::was_cancelled(&server.cancel_and_join()));
        (visits, end.is_ok())
    }

    #[strands::test]
    fn each_page_that_can_be_found_is_visited_once() {
        let (visits, ended) = crawl(40, Duration::MAX);
        assert!(ended);
        // Pages 0 to 39 answer, if the machine is not too slow, and each is linked to two more.
        let count = |outcome| visits.iter().filter(|visit| visit.outcome == outcome).count();
        let late = count("no answer in time");
        assert!(
            late > 0 || (count("200 OK"), count("404 Not Found")) == (40, 41),
            "{}",
            table(&visits)
        );
        assert!(table(&visits).starts_with("outcome"));
    }

    #[strands::test]
    fn the_time_for_all_ends_it() {
        let (visits, ended) = crawl(100_000, Duration::from_millis(20));
        assert!(!ended && visits.len() < 100_000);
    }
}
