//! execve: another program in the running process.
//!
//! Everything that can fail is done before the point of no return; after it the old program is gone.

use super::user_stack::{self, Program, Strings};
use super::{Thread, current_thread, ptrace, random};
use crate::arch::irq_flag::IrqOff;
use crate::arch::page_table::{PAGE_SIZE, USER_END};
use crate::entry::frame::{Frame, RFLAGS_IF};
use crate::errno::{EAGAIN, ELIBBAD, ENOEXEC, ENOMEM, Errno};
use crate::fs::{self, Running, WorkDir};
use crate::mm::address_space::{AddressSpace, Content, Mapped, Place, STACK_LIMIT, affordable};
use crate::mm::vdso;
use crate::percpu;
use crate::sched;
use alloc::borrow::Cow;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use kcore::elf::{self, Kind, LoadPlan};
use kcore::lease::EndCause;
use kcore::vma::Prot;
use x86_64::registers::model_specific::Msr;
use x86_64::registers::segmentation::{FS, Segment64};

/// Where position-independent programs go, as in Linux: two thirds of user space.
const PIE_BASE: u64 = 0x5555_5555_4000;
/// execve's number.
const EXECVE: u64 = 59;
/// A script may name an interpreter that is a script, so often.
const SCRIPT_DEPTH: usize = 4;

/// A program in an address space of its own, ready to run.
pub struct Loaded {
    /// Where it is.
    pub space: Arc<AddressSpace>,
    /// First instruction.
    pub entry: u64,
    /// Stack pointer.
    pub stack: u64,
    /// Its arguments, with what scripts put before them.
    pub args: Strings,
    /// Its file.
    pub program: Arc<Running>,
}

/// Make a program from the file `found`, which hears that it is `path`, as a script's interpreter does.
pub fn load(
    work_dir: &WorkDir,
    found: &Arc<fs::place::Place>,
    path: &[u8],
    mut args: Strings,
    env: &Strings,
) -> Result<Loaded, Errno> {
    let (mut file, mut program) = image(found)?;
    let mut interpreter: Vec<u8> = path.to_vec();
    for _ in 0..SCRIPT_DEPTH {
        let Some((runner, argument)) = script_line(&file.bytes) else { break };
        let (runner, argument) = (runner.to_vec(), argument.map(<[u8]>::to_vec));
        args.remove_first();
        args.push_front(&interpreter)?;
        if let Some(argument) = argument {
            args.push_front(&argument)?;
        }
        args.push_front(&runner)?;
        (file, program) = file_at(work_dir, &runner)?;
        interpreter = runner;
    }
    let plan = elf::plan_user(&file.bytes).map_err(|e| {
        crate::info!("{}: {e}", core::str::from_utf8(path).unwrap_or("?"));
        ENOEXEC
    })?;
    let interpreter = match &plan.interp {
        Some(range) => Some(interpreter_at(work_dir, file.bytes.get(range.clone()).unwrap_or(&[]))?),
        None => None,
    };
    let space = AddressSpace::new().ok_or(ENOMEM)?;
    let base = program_base(&plan)?;
    let end = map_segments(&space, &file.mapped, &plan, base)?;
    // As many random bits as Linux has: 13 of the heap's start, 22 of the stack's, 28 of mmap's and of a program's own.
    space.set_brk_start(end + random::offset(13, PAGE_SIZE));
    let stack_offset = random::offset(22, PAGE_SIZE);
    space.lower_mmap_base(stack_offset + random::offset(28, PAGE_SIZE));
    let vdso_at = USER_END - stack_offset - vdso::SIZE;
    vdso::map(&space, vdso_at)?;
    // A page between them, so that what runs off the stack's upper end faults.
    let top = vdso_at - PAGE_SIZE;
    let stack_prot = if plan.stack_exec { Prot::RW.with(Prot::X) } else { Prot::RW };
    let needed = args.bytes().len() + env.bytes().len() + (args.len() + env.len()) * 8 + 4096;
    let size = (needed as u64 + 32 * PAGE_SIZE).next_multiple_of(PAGE_SIZE).min(STACK_LIMIT);
    space.map(Place::FixedNoReplace(top - size), size, stack_prot, Content::Stack)?;
    // Behind everything else, so that it takes a place that is free.
    let (interpreter_base, first) = match &interpreter {
        Some((file, plan)) => {
            let base = place_for(&space, plan)?;
            map_segments(&space, &file.mapped, plan, base)?;
            (base, plan.entry + base)
        }
        None => (0, plan.entry + base),
    };
    let start = Program {
        phdr: plan.phdr_vaddr.map_or(0, |p| p + base),
        phent: plan.phentsize as u64,
        phnum: plan.phnum as u64,
        entry: plan.entry + base,
        interpreter: interpreter_base,
        vdso: vdso_at,
    };
    // A few bytes down from the top, so that caches see stacks at different places.
    let stack = user_stack::build(&space, top - random::offset(5, 16), path, &args, env, &start)?;
    Ok(Loaded { space: Arc::new(space), entry: first, stack, args, program: Arc::new(program) })
}

/// A program's file: what is mapped of it, and its bytes as they are now.
struct Image {
    mapped: Mapped,
    bytes: Cow<'static, [u8]>,
}

fn image(place: &Arc<fs::place::Place>) -> Result<(Image, Running), Errno> {
    let (mapped, program) = fs::lookup_exec(place)?;
    let bytes = mapped.pages.whole()?;
    Ok((Image { mapped, bytes }, program))
}

fn file_at(work_dir: &WorkDir, path: &[u8]) -> Result<(Image, Running), Errno> {
    image(&fs::place::resolve(&work_dir.place(), path, true)?)
}

/// `#!interpreter [argument]` in the first line.
fn script_line(file: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let line = file.strip_prefix(b"#!")?;
    let line = &line[..line.len().min(254)];
    let line = &line[..line.iter().position(|&b| b == b'\n').unwrap_or(line.len())];
    let line = line.trim_ascii();
    let end = line.iter().position(|b| b.is_ascii_whitespace()).unwrap_or(line.len());
    let (program, rest) = line.split_at(end);
    let rest = rest.trim_ascii();
    (!program.is_empty()).then_some((program, (!rest.is_empty()).then_some(rest)))
}

/// The program that PT_INTERP names, which loads the rest. It may be open for writing, as on Linux; what it asks for itself is ignored.
fn interpreter_at(work_dir: &WorkDir, name: &[u8]) -> Result<(Image, LoadPlan), Errno> {
    let (file, _) = file_at(work_dir, name)?;
    let plan = elf::plan_user(&file.bytes).map_err(|e| {
        crate::info!("{}: {e}", core::str::from_utf8(name).unwrap_or("?"));
        ELIBBAD
    })?;
    Ok((file, plan))
}

/// What is added to a program's addresses.
fn program_base(plan: &LoadPlan) -> Result<u64, Errno> {
    match plan.kind {
        Kind::Static => Ok(0),
        Kind::Pie => (PIE_BASE + random::offset(28, PAGE_SIZE))
            .next_multiple_of(plan.align)
            .checked_sub(plan.span().start)
            .ok_or(ENOEXEC),
    }
}

/// What is added to an interpreter's addresses: a free place for all of it. Nobody else maps anything meanwhile.
fn place_for(space: &AddressSpace, plan: &LoadPlan) -> Result<u64, Errno> {
    let span = plan.span();
    match plan.kind {
        Kind::Static => Ok(0),
        Kind::Pie => {
            let len = (span.end - span.start).checked_add(plan.align).ok_or(ENOMEM)?;
            let at = space.map(Place::Anywhere(0), len, Prot::NONE, Content::Anonymous)?;
            space.unmap(at, len)?;
            at.next_multiple_of(plan.align).checked_sub(span.start).ok_or(ENOEXEC)
        }
    }
}

/// Map the segments, `base` added; returns the end of the highest.
fn map_segments(space: &AddressSpace, file: &Mapped, plan: &LoadPlan, base: u64) -> Result<u64, Errno> {
    let mut end = 0;
    for segment in &plan.segments {
        let mut prot = Prot::NONE;
        for (has, right) in [(segment.read, Prot::R), (segment.write, Prot::W), (segment.exec, Prot::X)] {
            if has {
                prot = prot.with(right);
            }
        }
        let at = segment.vaddr + base;
        let start = at & !(PAGE_SIZE - 1);
        let file_end = (at + segment.filesz).next_multiple_of(PAGE_SIZE);
        let memory_end = (at + segment.memsz).next_multiple_of(PAGE_SIZE);
        if segment.filesz > 0 {
            let offset = segment.file_offset - (at - start);
            space.map(Place::Fixed(start), file_end - start, prot, Content::File(file.clone(), offset))?;
            // The file goes on in the last page, where the segment has zeros, and behind them too: ld.so takes its first memory there.
            let tail = file_end - (at + segment.filesz);
            if segment.memsz > segment.filesz && segment.write {
                const ZEROS: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];
                space.write(at + segment.filesz, &ZEROS[..tail as usize]).map_err(|_| ENOMEM)?;
            }
        }
        let zero_start = if segment.filesz > 0 { file_end } else { start };
        if memory_end > zero_start {
            affordable(memory_end - zero_start)?;
            space.map(Place::Fixed(zero_start), memory_end - zero_start, prot, Content::Anonymous)?;
        }
        end = end.max(memory_end);
    }
    Ok(end)
}

/// The registers of a program that starts.
pub fn first_frame(entry: u64, stack: u64) -> Frame {
    Frame {
        rip: entry,
        cs: crate::arch::gdt::USER_CS as u64,
        rflags: RFLAGS_IF | 2,
        rsp: stack,
        ss: crate::arch::gdt::USER_DS as u64,
        orig_rax: u64::MAX,
        ..Frame::default()
    }
}

/// execve(2) of the file `found`, as `path`, in the running process. On success `frame` is the new program's.
pub fn execve(
    frame: &mut Frame,
    found: &Arc<fs::place::Place>,
    path: &[u8],
    args: Strings,
    env: &Strings,
) -> Result<(), Errno> {
    let thread = current_thread();
    let process = &thread.process;
    // For what is small and cannot fail from here on.
    if !crate::mm::frame::above_reserve(1) {
        return Err(ENOMEM);
    }
    let loaded = load(&process.work_dir, found, path, args, env)?;
    let old_tid = thread.tid.load(Ordering::Relaxed);
    end_other_threads(thread)?;
    // Descriptors that were shared with another process are this one's own from now on.
    let own_files = match thread.files() {
        Some(shared) if shared.is_shared() => Some(shared.clone_table().ok_or(ENOMEM)?),
        shared => shared.cloned(),
    };
    // The point of no return. The locks that the old program holds are left while their words can be reached.
    crate::isolation::lease::end_with(EndCause::Exec);
    sched::futex::leave_locks(thread, true);
    let old = process.address_space.lock().replace(loaded.space.clone());
    let root = loaded.space.root();
    // SAFETY: the thread itself; no reference to its address space is alive.
    let own = unsafe { thread.set_address_space(Some(loaded.space.clone())) };
    {
        const KERNEL_GS_BASE: u32 = 0xc000_0102;
        let task = sched::current();
        let irq_off = IrqOff::new();
        task.root.store(root, Ordering::Relaxed);
        sched::switch::load_address_space(percpu::this(&irq_off), root);
        // SAFETY: interrupts are off; the CPU holds this task's user state, which starts anew.
        unsafe {
            crate::arch::fpu::load_initial();
            FS::write_base(x86_64::VirtAddr::zero());
            Msr::new(KERNEL_GS_BASE).write(0);
        }
    }
    drop(old);
    drop(own);
    let waiting = process.vfork.lock().take();
    if let Some(waiting) = waiting {
        waiting.complete();
    }
    if let Some(own) = own_files {
        own.close_on_exec();
        let old = process.files.lock().replace(own.clone());
        // SAFETY: the thread itself, with no reference to its table alive.
        let older = unsafe { thread.set_files(Some(own)) };
        drop(old);
        drop(older);
    }
    super::timer::program_ends(process);
    process.actions.lock().reset_for_exec();
    thread.set_alternate_stack(Default::default());
    super::restartable::forget(thread);
    thread.clear_child_tid.store(0, Ordering::Relaxed);
    process.has_execed.store(true, Ordering::Relaxed);
    process.exit_signal.store(crate::process::signal::sig::CHLD, Ordering::Relaxed);
    describe(thread, path, &loaded);
    *frame = first_frame(loaded.entry, loaded.stack);
    if thread.traced.load(Ordering::SeqCst) {
        // A tracer sees which call it is that ends.
        frame.orig_rax = EXECVE;
        ptrace::exec_done(thread, frame, old_tid);
    }
    Ok(())
}

/// Name and arguments, as ps shows them.
pub fn describe(thread: &Thread, path: &[u8], loaded: &Loaded) {
    let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
    let _ = sched::task::with(thread.task, |t| t.set_comm(name));
    let process = &thread.process;
    process.stack_start.store(loaded.stack, Ordering::Relaxed);
    let cmdline = core::mem::replace(&mut *process.cmdline.lock(), loaded.args.bytes().to_vec());
    drop(cmdline);
    let exe = core::mem::replace(&mut *process.exe.lock(), loaded.program.path());
    drop(exe);
    let program = process.program.lock().replace(loaded.program.clone());
    drop(program);
}

/// All threads but the running one end; it becomes the process's first. Of two threads that want it the later one fails, and ends.
fn end_other_threads(thread: &Thread) -> Result<(), Errno> {
    let process = &thread.process;
    // Before the list is read: no thread joins it from here on (`fork::join`).
    if process.exec_by.compare_exchange(0, thread.task, Ordering::SeqCst, Ordering::SeqCst).is_err() {
        return Err(EAGAIN);
    }
    let alone = wait_until_alone(thread);
    process.exec_by.store(0, Ordering::SeqCst);
    if !alone {
        return Err(EAGAIN);
    }
    thread.tid.store(process.pid, Ordering::Relaxed);
    ptrace::forget_end(process);
    Ok(())
}

/// False: the process has to end.
fn wait_until_alone(thread: &Thread) -> bool {
    let process = &thread.process;
    let threads = process.threads.lock().clone();
    for other in threads.iter().filter(|t| t.task != thread.task) {
        other.must_end.store(true, Ordering::SeqCst);
        let _ = sched::task::with(other.task, |t| sched::notify_signal(t));
    }
    drop(threads);
    // Stopped ones do not sleep interruptibly.
    process.changed.wake_all();
    let decided = || {
        let alone = process.threads.lock().len() == 1;
        (alone || process.ending().is_some()).then_some(alone)
    };
    process.changed.wait(false, decided).unwrap_or(false)
}
