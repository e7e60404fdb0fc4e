//! Corrupted traces: whatever happens to the bytes, the decoder does not panic, gives only records that were sent, each
//! once and in order, and what it received and what it tells as lost add up to what was sent.
//!
//! The seed is printed; QUIESCE_SEED repeats a run. QUIESCE_FUZZ says how many inputs.
#![cfg(not(any(loom, miri)))]

use kcore::trace_event::{Clock, FIRST_IDLE_TASK, Flags, Line, Names, Record, Site, WORDS};
use kcore::trace_frame::{Account, Decoder, Encoder, Frame, Hello, Item, MAX_FRAME, Total};

/// Inputs unless QUIESCE_FUZZ says otherwise.
const INPUTS: u64 = 1_000_000;
const CPUS: usize = 3;

/// Random numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 16) as usize % end.max(1)
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: no number")))
}

/// A stream and what was sent in it.
struct Stream {
    bytes: Vec<u8>,
    totals: [Total; CPUS],
}

/// Record `n` of a CPU: told from all others by its first word. The rest is random, mostly a record that decodes.
fn record(random: &mut Random, cpu: usize, n: u64) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    words[0] = (cpu as u64) << 32 | n;
    words[1] = (1 + random.next() % 24) | ((random.next() & 7) << 8) | (random.next() << 32);
    if random.below(4) == 0 {
        words.iter_mut().skip(1).for_each(|word| *word = random.next());
    }
    words
}

fn stream(random: &mut Random) -> Stream {
    let (mut encoder, mut out, mut bytes) = (Encoder::new(), [0; MAX_FRAME], Vec::new());
    let mut totals = [Total::default(); CPUS];
    (0..CPUS).for_each(|cpu| totals[cpu].cpu = cpu as u32);
    let hello = Hello { clock: Clock { tsc_khz: random.next(), boot_tsc: random.next() }, cpus: CPUS as u32 };
    bytes.extend(encoder.hello(&mut out, &hello).expect("room"));
    for _ in 0..random.below(8) {
        match random.below(6) {
            0 => bytes.extend(encoder.hello(&mut out, &hello).expect("room")),
            1 => {
                let site = Site { file: "kernel/src/smp/ipi.rs", line: random.next() as u32 };
                bytes.extend(encoder.site(&mut out, random.next(), &site).expect("room"));
            }
            2 => bytes
                .extend(encoder.task(&mut out, random.next() as u32, b"fuzz\0\0\0\0\0\0\0\0\0\0\0\0").expect("room")),
            _ => {
                let total = &mut totals[random.below(CPUS)];
                if random.below(3) == 0 {
                    total.lost += random.below(5) as u64;
                }
                let before = *total;
                let records: Vec<_> = (0..random.below(5) as u64)
                    .map(|i| record(random, before.cpu as usize, before.delivered + i))
                    .collect();
                total.delivered += records.len() as u64;
                bytes.extend(encoder.records(&mut out, &before, &records).expect("room"));
            }
        }
    }
    bytes.extend(encoder.end(&mut out, &totals).expect("room"));
    Stream { bytes, totals }
}

/// Does something bad to the bytes.
fn corrupt(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..1 + random.below(4) {
        let (len, at) = (bytes.len(), random.below(bytes.len()));
        let piece = at..len.min(at + 1 + random.below(200));
        match random.below(9) {
            0 if len > 0 => bytes[at] ^= 1 << random.below(8),
            1 if len > 0 => bytes[at] = random.next() as u8,
            2 => drop(bytes.drain(piece)),
            3 => bytes.truncate(at),
            4 => {
                let again = bytes[piece].to_vec();
                let to = random.below(len);
                bytes.splice(to..to, again);
            }
            5 => {
                let garbage: Vec<u8> = (0..random.below(40)).map(|_| random.next() as u8).collect();
                bytes.splice(at..at, garbage);
            }
            6 => {
                // Sync bytes with a length that promises what does not come.
                let head = [b'Q', b'T', 0xf5, 0x1a, random.next() as u8, (random.next() & 0x3f) as u8];
                bytes.splice(at..at, head);
            }
            7 => bytes[piece].fill(b'Q'),
            _ => bytes[piece].reverse(),
        }
    }
}

struct Nobody;

impl Names for Nobody {
    fn comm(&self, _: u32) -> Option<[u8; 16]> {
        None
    }

    fn site(&self, _: u64) -> Option<Site<'_>> {
        None
    }
}

/// What one input gave.
#[derive(Default)]
struct Got {
    account: Account,
    next: [u64; CPUS],
    text: String,
}

impl Got {
    fn take(&mut self, item: &Item, words_seen: u64) {
        self.account.add(item);
        let Item::Frame(Frame::Records { before, records }) = item else { return };
        let cpu = before.cpu as usize;
        for (i, words) in records.iter().enumerate() {
            let n = words[0] & 0xffff_ffff;
            assert_eq!((words[0] >> 32, n), (cpu as u64, before.delivered + i as u64), "a record that was not sent so");
            assert!(n >= self.next[cpu], "record {n} of CPU {cpu} twice or out of order");
            self.next[cpu] = n + 1;
            // Text is the slowest part by far: not for each.
            if words_seen.is_multiple_of(16)
                && let Ok(record) = Record::decode(words)
            {
                let clock = Clock { tsc_khz: words[3], boot_tsc: words[4] };
                let line = Line { cpu: before.cpu, record: &record, clock: &clock, names: &Nobody };
                self.text.clear();
                std::fmt::Write::write_fmt(&mut self.text, format_args!("{line}")).expect("a String takes everything");
                let mut expected = *words;
                if expected[1] >> 32 >= u64::from(FIRST_IDLE_TASK) {
                    expected[1] &= 0xffff_ffff;
                }
                assert_eq!(record.encode(), expected);
                assert!(self.text.is_ascii() && record.flags.0 <= Flags::IRQS_OFF.0 | 2 | 4);
            }
        }
    }
}

fn one(random: &mut Random, input: u64) -> Account {
    let Stream { mut bytes, totals } = stream(random);
    corrupt(random, &mut bytes);
    let (mut decoder, mut got) = (Decoder::new(), Got::default());
    let piece = 1 + random.below(bytes.len().max(1));
    for part in bytes.chunks(piece) {
        decoder.push(part);
        while let Some(item) = decoder.next() {
            got.take(&item, input);
        }
    }
    decoder.end();
    while let Some(item) = decoder.next() {
        got.take(&item, input);
    }
    let account = got.account;
    assert!(account.skipped_bytes <= bytes.len() as u64);
    for (cpu, one) in account.cpus() {
        let sent = &totals[cpu as usize];
        assert_eq!(one.received + one.lost_on_line(), one.delivered, "CPU {cpu}");
        assert!(one.delivered <= sent.delivered && one.lost_in_kernel <= sent.lost, "CPU {cpu}");
        assert!(!account.ended || (one.delivered, one.lost_in_kernel) == (sent.delivered, sent.lost), "CPU {cpu}");
    }
    account
}

#[test]
fn a_million_corrupted_inputs() {
    let seed = number("QUIESCE_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        now.as_nanos() as u64 | 1
    });
    let inputs = number("QUIESCE_FUZZ").unwrap_or(INPUTS);
    println!("QUIESCE_SEED={seed} QUIESCE_FUZZ={inputs}");
    let mut random = Random(seed.max(1));
    let (mut skipped, mut lost, mut missing, mut ended) = (0, 0, 0, 0);
    for input in 0..inputs {
        let account = one(&mut random, input);
        skipped += account.skipped_bytes;
        missing += account.missing_frames;
        lost += account.all().lost_on_line();
        ended += u64::from(account.ended);
    }
    println!("{skipped} bytes skipped, {missing} frames missing, {lost} records lost on the line, {ended} ends seen");
    // The corruption corrupts, and not all of it hits the end.
    assert!(skipped > inputs && missing > 0 && lost > 0 && ended > inputs / 4);
}
