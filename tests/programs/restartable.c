/* Restartable sequences (rseq(2)): registration, what the area says, a sequence that starts anew after a signal, after another task had the CPU
   (also while a page fault was handled), by another thread's membarrier and by a single step, malformed ones. Runs on Linux too, there too with CPU 1 for itself; glibc's own registration has to be off (GLIBC_TUNABLES=glibc.pthread.rseq=0).
   Prints a line for each check that fails, then `restartable: N failed`. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define SIGNATURE 0x53053053
#define STRING(x) #x
#define TEXT(x) STRING(x)

struct area {
	volatile uint32_t cpu_id_start, cpu_id;
	volatile uint64_t sequence;
	volatile uint32_t flags, node, mm_cid, end;
} __attribute__((aligned(32)));

static int failed;

static void check(long is, long wanted, const char *what)
{
	if (is != wanted) {
		printf("%s: %ld, not %ld\n", what, is, wanted);
		failed++;
	}
}

/* 0, or the error. */
static long rseq(void *area, unsigned len, int flags, unsigned signature)
{
	return syscall(SYS_rseq, area, len, flags, signature) == 0 ? 0 : errno;
}

static void move(pid_t task, int cpu)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(task, sizeof set, &set) != 0)
		check(errno, 0, "sched_setaffinity");
}

static void go_to(int cpu)
{
	move(0, cpu);
}

static void nap(void)
{
	struct timespec ms = { 0, 1000000 };
	nanosleep(&ms, NULL);
}

static atomic_int handled, stop, entered, meant;
static pid_t looping;

static void *in_thread(void *nothing)
{
	static struct area own = { .cpu_id = -1 };
	check(rseq(&own, 32, 0, SIGNATURE), 0, "a thread registers");
	check(rseq(&own, 32, 1, SIGNATURE), 0, "and no more");
	check((int)own.cpu_id, -1, "cpu_id after that");
	return nothing;
}

/* Moves the thread that spins, as long as it does. */
static void *move_it(void *nothing)
{
	for (int cpu = 0; !stop; cpu = !cpu) {
		move(looping, cpu);
		nap();
	}
	return nothing;
}

/* Who is moved by another thread, without a system call of its own, finds the number of its CPU. */
static void moved_by_another(struct area *area)
{
	pthread_t thread;
	int seen = 0;
	stop = 0;
	looping = gettid();
	pthread_create(&thread, NULL, move_it, NULL);
	while (seen != 3)
		seen |= 1 << area->cpu_id;
	stop = 1;
	pthread_join(thread, NULL);
}

static void registration(void)
{
	/* What memory has in it is no sequence. */
	static struct area area = { .cpu_id = -1, .sequence = 8, .node = -1, .mm_cid = -1 }, other;
	static struct { struct area area; char more[32]; } longer;
	int status;
	pthread_t thread;
	check(rseq(&area, 32, 1, SIGNATURE), EINVAL, "nothing to unregister");
	check(rseq(&area, 31, 0, SIGNATURE), EINVAL, "31 bytes");
	check(rseq(&area, 32, 2, SIGNATURE), EINVAL, "flag 2");
	check(rseq((char *)&area + 8, 32, 0, SIGNATURE), EINVAL, "not aligned");
	check(rseq((void *)-32, 32, 0, SIGNATURE), EFAULT, "no user memory");
	check(rseq(&area, 32, 0, SIGNATURE), 0, "register");
	for (int cpu = 0; cpu < 2; cpu++) {
		go_to(cpu);
		check(area.cpu_id, cpu, "cpu_id");
		check(area.cpu_id_start, cpu, "cpu_id_start");
		check(area.node, 0, "node");
		check(area.mm_cid < 1024, 1, "mm_cid");
	}
	moved_by_another(&area);
	check(rseq(&area, 32, 0, SIGNATURE), EBUSY, "again");
	check(rseq(&area, 32, 0, 1), EPERM, "another signature");
	check(rseq(&other, 32, 0, SIGNATURE), EINVAL, "another area");
	check(rseq(&area, 32, 1, 1), EPERM, "unregister with another signature");
	if (fork() == 0) {
		go_to(0);
		_exit(area.cpu_id != 0 || rseq(&area, 32, 0, SIGNATURE) != EBUSY);
	}
	wait(&status);
	check(status, 0, "the child of fork has it");
	pthread_create(&thread, NULL, in_thread, NULL);
	pthread_join(thread, NULL);
	check(rseq(&area, 32, 1, SIGNATURE), 0, "unregister");
	check(rseq(&area, 32, 1, SIGNATURE), EINVAL, "twice");
	check(area.node || area.mm_cid, 0, "node and mm_cid after that");
	check(rseq(&longer, 64, 0, SIGNATURE), 0, "64 bytes");
	check(rseq(&longer, 32, 1, SIGNATURE), EINVAL, "unregister 32 of them");
	check(rseq(&longer, 64, 1, SIGNATURE), 0, "unregister 64");
}

/* Of the sequence below: flags, its start, its length, its abort. */
static uint64_t descriptor[4] __attribute__((aligned(32)));

/* A sequence that ends by its abort alone. */
static void loop_in_sequence(struct area *area)
{
	uint64_t start, end;
	__asm__ volatile(
		"leaq 1f(%%rip), %0\n\tmovq %0, 8(%2)\n\t"
		"leaq 2f(%%rip), %1\n\tsubq %0, %1\n\tmovq %1, 16(%2)\n\t"
		"leaq 3f(%%rip), %0\n\tmovq %0, 24(%2)\n\t"
		"movq %2, 8(%3)\n"
		"1:\tmovl $1, (%4)\n\tjmp 1b\n"
		"2:\t.byte 0x0f, 0xb9, 0x3d\n\t.long " TEXT(SIGNATURE) "\n"
		"3:"
		: "=&r"(start), "=&r"(end)
		: "r"(descriptor), "r"(area), "r"(&entered)
		: "memory", "cc");
	check(area->sequence, 0, "the sequence is forgotten");
}

static void handle(int signal)
{
	handled += signal == SIGUSR1;
}

static void *send(void *nothing)
{
	/* From another CPU, so that nothing but the signal ends the sequence. */
	go_to(0);
	while (!handled) {
		if (entered)
			syscall(SYS_tgkill, getpid(), looping, SIGUSR1);
		nap();
	}
	return nothing;
}

static void *spin(void *nothing)
{
	go_to(0);
	while (!stop)
		;
	return nothing;
}

static atomic_long beats;

static void *beat(void *nothing)
{
	go_to(0);
	while (!stop)
		beats++;
	return nothing;
}

/* A sequence that writes to each page from start to end for the first time. Whether it got to its end; if so, `beats` must not have changed in it. */
static int walk(struct area *area, char *start, char *end)
{
	static uint64_t descriptor[4] __attribute__((aligned(32)));
	uint64_t work;
	int aborted = 0;
	__asm__ volatile(
		"leaq 1f(%%rip), %[work]\n\tmovq %[work], 8(%[d])\n\t"
		"leaq 2f(%%rip), %[work]\n\tsubq 8(%[d]), %[work]\n\tmovq %[work], 16(%[d])\n\t"
		"leaq 3f(%%rip), %[work]\n\tmovq %[work], 24(%[d])\n\t"
		"movq %[d], 8(%[area])\n"
		"1:\tmovq (%[beats]), %[work]\n"
		"4:\tmovb $1, (%[at])\n\taddq $4096, %[at]\n\tcmpq %[end], %[at]\n\tjb 4b\n\t"
		"subq (%[beats]), %[work]\n"
		"2:\tjmp 5f\n\t.byte 0x0f, 0xb9, 0x3d\n\t.long " TEXT(SIGNATURE) "\n"
		"3:\tmovl $1, %[aborted]\n"
		"5:"
		: [work] "=&r"(work), [aborted] "+&r"(aborted), [at] "+&r"(start)
		: [d] "r"(descriptor), [area] "r"(area), [beats] "r"(&beats), [end] "r"(end)
		: "memory", "cc");
	area->sequence = 0;
	if (!aborted)
		check((long)work, 0, "beats within a sequence with page faults");
	return !aborted;
}

/* The CPU goes to another task while a fault of the sequence is handled, mostly. */
static void faults(struct area *area)
{
	enum { LENGTH = 64 << 20, ABORTS = 3 };
	pthread_t thread;
	stop = 0;
	pthread_create(&thread, NULL, beat, NULL);
	for (int aborts = 0; aborts < ABORTS;) {
		char *pages = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		aborts += !walk(area, pages, pages + LENGTH);
		munmap(pages, LENGTH);
	}
	stop = 1;
	pthread_join(thread, NULL);
}

static long membarrier(int command, int flags, int cpu)
{
	return syscall(SYS_membarrier, command, flags, cpu) == 0 ? 0 : errno;
}

static void *bar(void *one_cpu)
{
	go_to(0);
	for (int i = 0; one_cpu && i < 20; i++) {
		check(membarrier(128, 1, 0), 0, "membarrier for CPU 0");
		nap();
	}
	meant = 1;
	while (!stop) {
		check(membarrier(128, one_cpu != NULL, 1), 0, "membarrier");
		nap();
	}
	return NULL;
}

/* Alone on its CPU: nothing else ends the sequence. */
static void barriers(struct area *area)
{
	check(membarrier(128, 0, 0), EPERM, "membarrier before it is registered");
	check(membarrier(256, 0, 0), 0, "membarrier's registration");
	check(membarrier(256, 1, 0), EINVAL, "membarrier's registration for a CPU");
	check(membarrier(128, 2, 0), EINVAL, "membarrier with another flag");
	for (long one_cpu = 0; one_cpu < 2; one_cpu++) {
		pthread_t thread;
		stop = meant = 0;
		/* The thread begins where its maker is. */
		go_to(0);
		pthread_create(&thread, NULL, bar, (void *)one_cpu);
		go_to(1);
		for (int i = 0; i < 3; i++) {
			loop_in_sequence(area);
			check(meant, 1, "membarrier for this CPU was called");
		}
		stop = 1;
		pthread_join(thread, NULL);
	}
}

static void aborts(void)
{
	static struct area area;
	pthread_t thread;
	signal(SIGUSR1, handle);
	looping = gettid();
	check(rseq(&area, 32, 0, SIGNATURE), 0, "register");
	go_to(1);
	pthread_create(&thread, NULL, send, NULL);
	while (!handled)
		loop_in_sequence(&area);
	pthread_join(thread, NULL);
	/* Another task, as busy, on the same CPU. */
	go_to(0);
	pthread_create(&thread, NULL, spin, NULL);
	for (int i = 0; i < 3; i++)
		loop_in_sequence(&area);
	stop = 1;
	pthread_join(thread, NULL);
	check(area.cpu_id, 0, "cpu_id");
	faults(&area);
	barriers(&area);
	check(rseq(&area, 32, 1, SIGNATURE), 0, "unregister");
}

#define TF 0x100

static struct { long count, code, ip, address, sequence; } step;
static struct area *stepped_area;

static void end_step(int signal, siginfo_t *info, void *context)
{
	greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
	step.count++;
	step.code = info->si_code;
	step.address = (long)info->si_addr;
	step.ip = registers[REG_RIP];
	step.sequence = stepped_area->sequence;
	registers[REG_EFL] &= ~TF;
}

/* A sequence of `left` instructions behind the one that sets the trap flag: the trap comes behind the first of them. Whether it was aborted. Where
   it was when the trap came, and where its abort goes, relative to its end: in `at`, `abort`. */
static int step_in_sequence(struct area *area, int left, long *at, long *abort)
{
	static uint64_t descriptor[4] __attribute__((aligned(32)));
	uint64_t work;
	int aborted = 0;
	step.count = 0;
	__asm__ volatile(
		"leaq 1f(%%rip), %[work]\n\tmovq %[work], 8(%[d])\n\t"
		"leaq 2f(%%rip), %[work]\n\tcmpl $2, %[left]\n\tje 6f\n\tleaq 4f(%%rip), %[work]\n"
		"6:\tsubq 8(%[d]), %[work]\n\tmovq %[work], 16(%[d])\n\t"
		"leaq 3f(%%rip), %[work]\n\tmovq %[work], 24(%[d])\n\t"
		"subq $128, %%rsp\n\t"
		"movq %[d], 8(%[area])\n"
		"1:\tpushfq\n\torq $" TEXT(TF) ", (%%rsp)\n\tpopfq\n\tnop\n"
		"4:\tnop\n"
		"2:\tjmp 5f\n\t.byte 0x0f, 0xb9, 0x3d\n\t.long " TEXT(SIGNATURE) "\n"
		"3:\tmovl $1, %[aborted]\n"
		"5:\taddq $128, %%rsp\n\t"
		"leaq 4b(%%rip), %[work]"
		: [work] "=&r"(work), [aborted] "+&r"(aborted)
		: [d] "r"(descriptor), [area] "r"(area), [left] "r"(left)
		: "memory", "cc");
	*at = (long)work;
	*abort = (long)descriptor[3];
	area->sequence = 0;
	return aborted;
}

/* A single step within a sequence is a signal: the handler's frame has it start anew already. One behind its last instruction is outside. */
static void steps(void)
{
	static struct area area;
	struct sigaction action = { .sa_sigaction = end_step, .sa_flags = SA_SIGINFO };
	long at, abort;
	int status;
	stepped_area = &area;
	sigaction(SIGTRAP, &action, NULL);
	check(rseq(&area, 32, 0, SIGNATURE), 0, "register");
	for (int left = 2; left; left--) {
		int aborted = step_in_sequence(&area, left, &at, &abort);
		check(aborted, left == 2, "a step within a sequence ends it, behind it it does not");
		check(step.count, 1, "steps");
		check(step.code, TRAP_TRACE, "si_code of a step");
		check(step.address, at, "si_addr is where the step came");
		check(step.ip, left == 2 ? abort : at, "the handler returns there");
		check(step.sequence, 0, "the sequence is forgotten before its handler runs");
	}
	/* By a tracer, who sees no signal handler. */
	pid_t child = fork();
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
		loop_in_sequence(&area);
		_exit(5);
	}
	int stops = 0, within = 0;
	while (waitpid(child, &status, 0) == child && WIFSTOPPED(status) && ++stops < 10000) {
		uint64_t start = ptrace(PTRACE_PEEKDATA, child, &descriptor[1], 0);
		uint64_t ip = ptrace(PTRACE_PEEKUSER, child, offsetof(struct user_regs_struct, rip), 0);
		uint64_t length = ptrace(PTRACE_PEEKDATA, child, &descriptor[2], 0);
		if (ip - start < length) {
			within++;
			check(ptrace(PTRACE_PEEKDATA, child, &area.sequence, 0), (long)descriptor, "the sequence at the stop within it");
		}
		ptrace(PTRACE_SINGLESTEP, child, 0, 0);
	}
	check(status, 5 << 8, "a sequence without end under a tracer that steps");
	check(within, 1, "the tracer sees the stop within the sequence, which is over when it goes on");
	check(rseq(&area, 32, 1, SIGNATURE), 0, "unregister");
}

static void go_on(int signal)
{
	_exit(signal == SIGSEGV ? 7 : 8);
}

/* How a child ends, which may handle SIGSEGV, that has this descriptor, or an area that is gone. */
static int end_of(uint64_t *descriptor, int handles)
{
	int status;
	if (fork() == 0) {
		if (handles)
			signal(SIGSEGV, go_on);
		struct area *area = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (rseq(area, 32, 0, SIGNATURE) != 0)
			_exit(1);
		area->sequence = (uintptr_t)descriptor;
		if (!descriptor)
			mprotect(area, 4096, PROT_NONE);
		/* After a move each kernel looks. */
		go_to(0);
		go_to(1);
		_exit(0);
	}
	wait(&status);
	return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

/* A place with the signature in front of it, outside of all sequences. */
extern char elsewhere[];
__asm__(".text\n\t.long " TEXT(SIGNATURE) "\nelsewhere:\tud2\n");

int main(void)
{
	uint64_t outside[4] = { 0, 16, 16, (uintptr_t)elsewhere };
	uint64_t version[4] = { 7, 16, 16, (uintptr_t)elsewhere };
	uint64_t beyond[4] = { 0, 1UL << 46, 1UL << 46, (uintptr_t)elsewhere };
	uint64_t unsigned_abort[4] = { 0, 16, 16, (uintptr_t)elsewhere + 1 };
	check(getauxval(27) >= 28 && getauxval(28) == 32, 1, "the auxiliary vector tells size and alignment");
	registration();
	aborts();
	steps();
	check(end_of(outside, 0), 0, "a sequence that it is not in");
	for (int handles = 0; handles < 2; handles++) {
		int end = handles ? 7 : SIGSEGV;
		check(end_of(version, handles), end, "a version that nobody knows");
		check(end_of(beyond, handles), end, "beyond user memory");
		check(end_of(unsigned_abort, handles), end, "an abort without signature");
		check(end_of((uint64_t *)8, handles), end, "no descriptor there");
		check(end_of(NULL, handles), end, "no area there");
	}
	printf("restartable: %d failed\n", failed);
	return failed != 0;
}
