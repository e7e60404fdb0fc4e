//! The idle loop: IDLE in the context word, no tick, halted until an interrupt.

use crate::arch::irq_flag::IrqOff;
use crate::context_tracking;
use crate::entry::exit_work;
use crate::percpu;
use crate::static_branch;
use crate::trace::key::TRACE_CONTEXT;
use crate::trace::record::record;
use core::sync::atomic::Ordering;
use kcore::trace_event::{Data, Flags};

/// What a CPU does when nothing is runnable. Runs as the CPU's idle task, preemption off but for `schedule`.
pub fn run() -> ! {
    loop {
        let irq_off = IrqOff::new();
        let me = percpu::this(&irq_off);
        crate::time::tick::idle_enter(me, &irq_off);
        if me.head.exit_work.load(Ordering::SeqCst) & exit_work::RESCHED == 0 {
            if static_branch!(TRACE_CONTEXT) {
                me.trace.idle.store(true, Ordering::Relaxed);
                record(&irq_off, Flags::IRQS_OFF, Data::IdleEnter { word: me.head.context.0.load() });
            }
            context_tracking::idle_enter(&irq_off);
            // An interrupt between STI and HLT is taken after HLT starts, and ends it. Its entry path leaves IDLE.
            x86_64::instructions::interrupts::enable_and_hlt();
            x86_64::instructions::interrupts::disable();
            context_tracking::idle_exit_if_idle(&irq_off);
            if static_branch!(TRACE_CONTEXT) && me.trace.idle.swap(false, Ordering::Relaxed) {
                record(&irq_off, Flags::IRQS_OFF, Data::IdleExit { word: me.head.context.0.load() });
            }
        }
        drop(irq_off);
        x86_64::instructions::interrupts::enable();
        if percpu::this(&crate::spin_lock::PreemptOff::new()).head.exit_work.load(Ordering::Relaxed)
            & exit_work::RESCHED
            != 0
        {
            super::schedule();
        }
    }
}
