//! What a handler is told of a fault: si_code, si_addr, and the frame's trapno, err and cr2, for every fault that a program can cause.
//!
//! What not every machine does is marked in the table (`perhaps`): QEMU's TCG raises neither #XM nor #AC, and its x87 knows no stack fault.

use super::{Check, ensure, equal};
use crate::linux::{self, Fork, SharedPage};
use crate::output::write_out;
use std::arch::asm;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("fault_code_memory", || all(MEMORY)),
    ("fault_code_instruction", || all(INSTRUCTION)),
    ("fault_code_x87", || all(X87)),
    ("fault_code_simd", || all(SIMD)),
    ("fault_code_sent", sent),
    ("fault_code_sent_later", sent_later),
];

const PAGE: u64 = 4096;
/// SI_KERNEL
const KERNEL: i32 = 0x80;

/// Addresses to go wrong at.
struct Places {
    /// Nothing, ever: mappings do not come so low of themselves.
    hole: u64,
    /// Read once, and not to be written.
    read_only: u64,
    /// No right at all.
    no_rights: u64,
    /// Written once, and not to be run.
    data: u64,
    /// Mapped, and behind the end of the file.
    beyond: u64,
    /// The kernel's text, as all know where it lies.
    kernel: u64,
    /// No address at all.
    far: u64,
    /// Of the stack's room, but more than it may grow.
    below_stack: u64,
}

/// What si_addr is to be.
#[derive(Clone, Copy)]
enum Address {
    /// 0
    Zero,
    /// Where the handler would go on.
    Instruction,
    /// One of the places.
    At(fn(&Places) -> u64),
}
use Address::{At, Instruction, Zero};

/// One fault: its name, the signals that it may be, si_code, si_addr, vector and error code, and what makes it.
struct Row {
    name: &'static str,
    signals: &'static [c_int],
    code: i32,
    address: Address,
    vector: u64,
    error: u64,
    /// Not every machine makes it.
    may_go_on: bool,
    make: fn(&Places),
}

const fn row(
    name: &'static str,
    signal: &'static [c_int],
    code: i32,
    address: Address,
    trap: (u64, u64),
    make: fn(&Places),
) -> Row {
    Row { name, signals: signal, code, address, vector: trap.0, error: trap.1, may_go_on: false, make }
}

const fn perhaps(row: Row) -> Row {
    Row { may_go_on: true, ..row }
}

const SEGV: &[c_int] = &[libc::SIGSEGV];
const BUS: &[c_int] = &[libc::SIGBUS];
const FPE: &[c_int] = &[libc::SIGFPE];
const ILL: &[c_int] = &[libc::SIGILL];
const TRAP: &[c_int] = &[libc::SIGTRAP];
const MAPERR: i32 = 1;
const ACCERR: i32 = 2;

fn read(at: u64) {
    // SAFETY: (1) a fault, of a child that is there for it.
    unsafe { asm!("mov rax, [rax]", inout("rax") at => _, options(nostack)) };
}

fn write(at: u64) {
    // SAFETY: as in `read`.
    unsafe { asm!("mov [rax], rax", in("rax") at, options(nostack)) };
}

fn run(at: u64) {
    // SAFETY: as in `read`.
    unsafe { asm!("jmp rax", in("rax") at, options(nostack)) };
}

/// Runs instructions that fault.
macro_rules! code {
    ($($code:expr),+ $(; $register:tt = $value:expr)*) => {
        // SAFETY: (1) a fault, of a child that is there for it; (2) what is changed is put back, or the child ends.
        |_| unsafe { asm!($($code),+ $(, in($register) $value)*, out("rcx") _) }
    };
}

const MEMORY: &[Row] = &[
    row("read nothing", SEGV, MAPERR, At(|p| p.hole), (14, 4), |p| read(p.hole)),
    row("write nothing", SEGV, MAPERR, At(|p| p.hole), (14, 6), |p| write(p.hole)),
    row("run nothing", SEGV, MAPERR, At(|p| p.hole), (14, 0x14), |p| run(p.hole)),
    row("read null", SEGV, MAPERR, Zero, (14, 4), |_| read(0)),
    row("write what is read-only", SEGV, ACCERR, At(|p| p.read_only), (14, 7), |p| write(p.read_only)),
    row("run data", SEGV, ACCERR, At(|p| p.data), (14, 0x15), |p| run(p.data)),
    row("read without rights", SEGV, ACCERR, At(|p| p.no_rights), (14, 4), |p| read(p.no_rights)),
    row("write without rights", SEGV, ACCERR, At(|p| p.no_rights), (14, 6), |p| write(p.no_rights)),
    row("read behind the file", BUS, 2, At(|p| p.beyond), (14, 4), |p| read(p.beyond)),
    row("write behind the file", BUS, 2, At(|p| p.beyond), (14, 6), |p| write(p.beyond)),
    row("read below the stack", SEGV, MAPERR, At(|p| p.below_stack), (14, 4), |p| read(p.below_stack)),
    // Whether something is mapped there is not told.
    row("read the kernel", SEGV, MAPERR, At(|p| p.kernel), (14, 5), |p| read(p.kernel)),
    row("write the kernel", SEGV, MAPERR, At(|p| p.kernel), (14, 7), |p| write(p.kernel)),
    row("run the kernel", SEGV, MAPERR, At(|p| p.kernel), (14, 0x15), |p| run(p.kernel)),
    row("read no address", SEGV, KERNEL, Zero, (13, 0), |p| read(p.far)),
    row("write no address", SEGV, KERNEL, Zero, (13, 0), |p| write(p.far)),
    row("run no address", SEGV, KERNEL, Zero, (13, 0), |p| run(p.far)),
];

const INSTRUCTION: &[Row] = &[
    row(
        "divide by zero",
        FPE,
        1,
        Instruction,
        (0, 0),
        code!("xor edx, edx", "xor ecx, ecx", "div ecx"; "eax" = 1; "rdx" = 0),
    ),
    // x86 does not tell the two; FPE_INTOVF is nobody's.
    row(
        "divide the least by -1",
        FPE,
        1,
        Instruction,
        (0, 0),
        code!("mov ecx, -1", "idiv ecx"; "eax" = i32::MIN; "edx" = -1),
    ),
    row("no instruction", ILL, 2, Instruction, (6, 0), code!("ud2")),
    row("a lock where none may be", ILL, 2, Instruction, (6, 0), code!(".byte 0xf0, 0x90")),
    row("breakpoint", TRAP, KERNEL, Zero, (3, 0), code!("int3")),
    row("INT1", TRAP, 1, Instruction, (1, 0), code!(".byte 0xf1", "nop")),
    row(
        "single step",
        TRAP,
        2,
        Instruction,
        (1, 0),
        code!("pushfq", "or dword ptr [rsp], 0x100", "popfq", "nop", "nop"),
    ),
    row("privileged", SEGV, KERNEL, Zero, (13, 0), code!("hlt")),
    row("a gate of the kernel's", SEGV, KERNEL, Zero, (13, 0x20 * 8 + 2), code!("int 0x20")),
    row("a segment that is not there", SEGV, KERNEL, Zero, (13, 0x1230), code!("mov ds, ax"; "eax" = 0x1233)),
    perhaps(row(
        "not aligned",
        BUS,
        1,
        Zero,
        (17, 0),
        code!(
            "pushfq",
            "or dword ptr [rsp], 0x40000",
            "popfq",
            "mov rcx, [rsp + 1]",
            "pushfq",
            "and dword ptr [rsp], 0xfffbffff",
            "popfq"
        ),
    )),
];

/// Words in memory for the floating-point rows.
static NUMBERS: [f64; 4] = [0.0, 1e300, 1e-300, 3.0];
/// The least number there is, by half of what is normal.
static TINY: u64 = 1;
/// Where results go.
static RESULT: AtomicU64 = AtomicU64::new(0);

fn number(index: usize) -> u64 {
    (&raw const NUMBERS[index]) as u64
}

/// The x87 with one error not masked.
macro_rules! x87 {
    ($bit:literal, $($code:expr),+ $(; $register:tt = $value:expr)*) => {
        code!("fninit", concat!("push 0x37f & ~(1 << ", $bit, ")"), "fldcw [rsp]", "pop rcx", $($code),+, "fwait", "fninit" $(; $register = $value)*)
    };
}

const X87: &[Row] = &[
    row("0 / 0", FPE, 7, Instruction, (16, 0), x87!("0", "fldz", "fldz", "fdivp")),
    perhaps(row("more than the stack has", FPE, 7, Instruction, (16, 0), x87!("0", "fstp st(0)"))),
    row("1 / 0", FPE, 3, Instruction, (16, 0), x87!("2", "fld1", "fldz", "fdivp")),
    row(
        "too large",
        FPE,
        4,
        Instruction,
        (16, 0),
        x87!("3", "fld qword ptr [rax]", "fstp dword ptr [rdx]"; "rax" = number(1); "rdx" = RESULT.as_ptr()),
    ),
    row(
        "too small",
        FPE,
        5,
        Instruction,
        (16, 0),
        x87!("4", "fld qword ptr [rax]", "fstp dword ptr [rdx]"; "rax" = number(2); "rdx" = RESULT.as_ptr()),
    ),
    row("1 / 3", FPE, 6, Instruction, (16, 0), x87!("5", "fld1", "fld qword ptr [rax]", "fdivp"; "rax" = number(3))),
    perhaps(row("denormal", FPE, 5, Instruction, (16, 0), x87!("1", "fld qword ptr [rax]"; "rax" = &raw const TINY))),
];

/// SSE with one error not masked, and masked again.
macro_rules! simd {
    ($bit:literal, $($code:expr),+ $(; $register:tt = $value:expr)*) => {
        code!(concat!("push 0x1f80 & ~(0x80 << ", $bit, ")"), "ldmxcsr [rsp]", $($code),+, "mov dword ptr [rsp], 0x1f80", "ldmxcsr [rsp]", "pop rcx"
            $(; $register = $value)*)
    };
}

const SIMD: &[Row] = &[
    perhaps(row("0 / 0", FPE, 7, Instruction, (19, 0), simd!("0", "xorps xmm0, xmm0", "divsd xmm0, xmm0"))),
    perhaps(row(
        "1 / 0",
        FPE,
        3,
        Instruction,
        (19, 0),
        simd!("2", "xorps xmm0, xmm0", "movsd xmm1, [rax]", "divsd xmm1, xmm0"; "rax" = number(3)),
    )),
    perhaps(row(
        "too large",
        FPE,
        4,
        Instruction,
        (19, 0),
        simd!("3", "movsd xmm0, [rax]", "mulsd xmm0, xmm0"; "rax" = number(1)),
    )),
    perhaps(row(
        "too small",
        FPE,
        5,
        Instruction,
        (19, 0),
        simd!("4", "movsd xmm0, [rax]", "mulsd xmm0, xmm0"; "rax" = number(2)),
    )),
    perhaps(row(
        "1 / 3",
        FPE,
        6,
        Instruction,
        (19, 0),
        simd!("5", "movsd xmm0, [rax]", "sqrtsd xmm0, xmm0"; "rax" = number(3)),
    )),
    perhaps(row(
        "denormal",
        FPE,
        5,
        Instruction,
        (19, 0),
        simd!("1", "movsd xmm0, [rax]", "addsd xmm0, xmm0"; "rax" = &raw const TINY),
    )),
];

/// Where the handler notes what it is told: the number of notes, then signal, si_code, si_errno, si_addr, RIP, trapno, err, cr2.
static NOTES: AtomicPtr<SharedPage> = AtomicPtr::new(std::ptr::null_mut());
const NOTED: usize = 8;

extern "C" fn note(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: (1) the page is set before the handler; (2) the kernel passes both.
    let (page, info, context) = unsafe { (&*NOTES.load(Relaxed), &*info, &*context.cast::<libc::ucontext_t>()) };
    // SAFETY: (1) any signal has these words, whatever they mean.
    let address = unsafe { info.si_addr() } as u64;
    let register = |name: c_int| context.uc_mcontext.gregs[name as usize] as u64;
    let words = [
        signal as u64,
        info.si_code as i64 as u64,
        info.si_errno as u64,
        address,
        register(libc::REG_RIP),
        register(libc::REG_TRAPNO),
        register(libc::REG_ERR),
        register(libc::REG_CR2),
    ];
    page[1..].iter().zip(words).for_each(|(to, word)| to.store(word, Relaxed));
    page[0].store(1, Relaxed);
    linux::exit_now(0);
}

/// Makes the fault in a child; what its handler was told, or `None` if it went on.
fn told(make: impl FnOnce()) -> Result<Option<[u64; NOTED]>, String> {
    let page = linux::shared_page().map_err(|e| e.to_string())?;
    NOTES.store(std::ptr::from_ref(page).cast_mut(), Relaxed);
    match linux::fork().map_err(|e| e.to_string())? {
        Fork::Child => {
            let mut stack = vec![0u8; 64 << 10];
            // SAFETY: (1) the stack outlives the child's work; (2) both structures are filled.
            unsafe {
                let alternate = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
                libc::sigaltstack(&alternate, std::ptr::null_mut());
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = note as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGUSR1] {
                    libc::sigaction(signal, &action, std::ptr::null_mut());
                }
            }
            make();
            linux::exit_now(3)
        }
        Fork::Parent(pid) => {
            let ended = linux::wait_for(pid).map_err(|e| e.to_string())?;
            let words = std::array::from_fn(|i| page[1 + i].load(Relaxed));
            let noted = page[0].load(Relaxed) != 0;
            // SAFETY: (1) the page of this call, which nobody uses any more.
            unsafe { libc::munmap(std::ptr::from_ref(page).cast_mut().cast(), size_of::<SharedPage>()) };
            match ended {
                linux::Ended::Exit(0) if noted => Ok(Some(words)),
                linux::Ended::Exit(3) => Ok(None),
                other => Err(format!("{other:?}")),
            }
        }
    }
}

fn map(len: u64, prot: c_int, flags: c_int, file: c_int) -> Result<u64, String> {
    // SAFETY: (1) a new mapping where the kernel likes.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len as usize, prot, flags, file, 0) };
    if at == libc::MAP_FAILED { Err(format!("mmap: {}", std::io::Error::last_os_error())) } else { Ok(at as u64) }
}

impl Places {
    fn make() -> Result<Places, String> {
        const BOTH: c_int = libc::PROT_READ | libc::PROT_WRITE;
        const OWN: c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let pages = map(2 * PAGE, BOTH, OWN, -1)?;
        let (read_only, data) = (pages, pages + PAGE);
        // SAFETY: (1) pages of this mapping; (2) a name that ends.
        let file = unsafe {
            (data as *mut u64).write_volatile(0xc3);
            (read_only as *const u64).read_volatile();
            libc::mprotect(read_only as *mut c_void, PAGE as usize, libc::PROT_READ);
            libc::memfd_create(c"fault".as_ptr(), 0)
        };
        ensure!(file >= 0);
        let mapped = map(2 * PAGE, BOTH, libc::MAP_SHARED, file)?;
        linux::close(file);
        let here = 0u8;
        let below_stack = ((&raw const here) as u64 & !(PAGE - 1)) - (24 << 20);
        Ok(Places {
            hole: 0x7000,
            read_only,
            no_rights: map(PAGE, libc::PROT_NONE, OWN, -1)?,
            data,
            beyond: mapped + PAGE,
            kernel: 0xffff_ffff_8000_0000,
            far: 0x8000_0000_0000_0000,
            below_stack,
        })
    }
}

/// All of `rows`. Those that this machine does not make are named: nothing is known of them here.
fn all(rows: &[Row]) -> Result<(), String> {
    let places = Places::make()?;
    let mut unmade = Vec::new();
    for row in rows {
        if !judge(row, &places).map_err(|why| format!("{}: {why}", row.name))? {
            unmade.push(row.name);
        }
    }
    if !unmade.is_empty() {
        let (count, all, names) = (unmade.len(), rows.len(), unmade.join(", "));
        write_out(format!("skipped {count} of {all} faults, which this machine does not make: {names}\n").as_bytes());
    }
    Ok(())
}

/// False: the machine does not make it.
fn judge(row: &Row, places: &Places) -> Result<bool, String> {
    let Some([signal, code, errno, address, rip, vector, error, cr2]) = told(|| (row.make)(places))? else {
        ensure!(row.may_go_on);
        return Ok(false);
    };
    ensure!(row.signals.contains(&(signal as c_int)));
    equal!((code as i32, errno), (row.code, 0));
    let wanted = match row.address {
        Zero => 0,
        Instruction => rip,
        At(place) => place(places),
    };
    equal!(format!("{address:#x}"), format!("{wanted:#x}"));
    equal!((vector, format!("{error:#x}")), (row.vector, format!("{:#x}", row.error)));
    if vector == 14 {
        equal!(format!("{cr2:#x}"), format!("{wanted:#x}"));
    }
    Ok(true)
}

/// A signal that is sent is no fault, and tells the last one: none.
fn sent() -> Result<(), String> {
    let told = told(|| {
        let _ = linux::kill(linux::own_pid(), libc::SIGUSR1);
    })?;
    let Some([signal, code, _, sender, _, vector, error, _]) = told else { return Err("no signal".into()) };
    equal!((signal as c_int, code), (libc::SIGUSR1, 0));
    ensure!(sender != 0); // who sent it, where faults have their address
    equal!((vector, error), (0, 0));
    Ok(())
}

/// Goes on behind the three bytes of the load in `read`.
extern "C" fn step_over(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: (1) the kernel passes it.
    unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_RIP as usize] += 3 };
}

/// After a fault that was handled, a signal that is sent tells of that fault still.
fn sent_later() -> Result<(), String> {
    const HOLE: u64 = 0x7000;
    const USER_READ: u64 = 4;
    let told = told(|| {
        // SAFETY: (1) the structure is filled.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = step_over as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut());
        }
        read(HOLE);
        let _ = linux::kill(linux::own_pid(), libc::SIGUSR1);
    })?;
    let Some([signal, .., vector, error, cr2]) = told else { return Err("no signal".into()) };
    equal!((signal as c_int, vector, error, cr2), (libc::SIGUSR1, 14, USER_READ, HOLE));
    Ok(())
}
