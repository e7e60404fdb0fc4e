//! The first program.

use super::user_stack::Strings;
use super::{exec, fork, tree};
use crate::errno::Errno;
use crate::fs::{self, FileTable, WorkDir};
use crate::limine::BootInfo;
use crate::sched::{self, switch, task};
use alloc::format;
use kcore::cmdline::{BootParams, Param};

fn word(p: &Param<'_>) -> alloc::string::String {
    match p.value {
        Some(v) => format!("{}={v}", p.name),
        None => p.name.into(),
    }
}

/// Start the first program as process 1: `init=` or /init of the root archive, with what the command line has for it. What is
/// missing ends the kernel with one line.
pub fn start_init(boot: &BootInfo, params: BootParams<'static>) -> Result<(), &'static str> {
    let archive = boot.initrd.ok_or("the boot loader gave no root archive: nothing to run")?;
    fs::init(Some(archive));
    let work_dir = WorkDir::new();
    let path = params.init.unwrap_or("/init");
    let mut args = Strings::new();
    let mut env = Strings::new();
    let too_long = |_: Errno| "the command line has too many words for init";
    args.push(path.as_bytes()).map_err(too_long)?;
    params.init_args.iter().try_for_each(|p| args.push(word(p).as_bytes())).map_err(too_long)?;
    for default in ["HOME=/", "TERM=linux"] {
        let name = default.split('=').next().unwrap_or(default);
        if !params.init_env.iter().any(|p| p.name == name) {
            env.push(default.as_bytes()).map_err(too_long)?;
        }
    }
    params.init_env.iter().try_for_each(|p| env.push(word(p).as_bytes())).map_err(too_long)?;

    let found = fs::place::resolve(&work_dir.place(), path.as_bytes(), true);
    let loaded = match found.and_then(|found| exec::load(&work_dir, &found, path.as_bytes(), args, &env)) {
        Ok(loaded) => loaded,
        Err(e) => {
            let why = if e == crate::errno::ENOENT { "not found in the root archive" } else { "cannot be run" };
            crate::panic::cannot_go_on(format_args!("{path}: {why} (error {}): nothing to run", e.0))
        }
    };
    let no_memory = "out of memory for the first program";
    let task = task::new_first("init").map_err(|_| no_memory)?;
    let file_table = FileTable::new();
    let console = fs::open_console();
    for _ in 0..3 {
        file_table.install(console.clone(), false).map_err(|_| no_memory)?;
    }
    let actions = super::signal::SignalActions::new();
    let process = fork::new_process(1, None, 0, loaded.space.clone(), file_table, work_dir, actions);
    let thread = fork::new_thread(process.clone(), &task, loaded.space.clone(), 0);
    if fork::join(&thread).is_err() || !tree::insert(process, 0, || false) {
        return Err(no_memory);
    }
    exec::describe(&thread, path.as_bytes(), &loaded);
    switch::prepare_user(&task, &exec::first_frame(loaded.entry, loaded.stack));
    crate::info!("Run {path} as init process");
    sched::start(&task);
    Ok(())
}
