//! loom: a lease's page under a reader on another CPU: what it is given was published at once.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test -p kcore --release --test loom_lease`.
#![cfg(loom)]

use kcore::lease_page::SeqPage;
use loom::sync::Arc;
use loom::thread;

type Page = SeqPage<2>;

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

#[test]
fn a_reader_gets_what_was_published_at_once() {
    model(|| {
        let page = Arc::new(Page::new());
        let writer = {
            let page = page.clone();
            thread::spawn(move || (1..=2).for_each(|n| page.publish([n, n + 10])))
        };
        let mut newest = 0;
        for _ in 0..2 {
            if let Some([n, check]) = page.read() {
                assert!((n, check) == (0, 0) || check == n + 10, "torn: {n} {check}");
                assert!(n >= newest, "{n} after {newest}");
                newest = n;
            }
        }
        writer.join().expect("writer");
        assert_eq!(page.read(), Some([2, 12]), "what was published last stays");
    });
}
