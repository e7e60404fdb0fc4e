/*
 * count.c - QEMU TCG plugin: how many instructions each vCPU executes in user mode and in the kernel, between marks
 * and from power-on to the first user-mode instruction. The counts are taken outside the guest, so they say what one
 * CPU did while others ran, which the shared instruction clock of -icount cannot.
 *
 * Loaded by the scenarios and `make bench` (crate host, file plugin.rs, reads the output). Needs QEMU 9.1 or later
 * and -accel tcg,thread=single, which -icount implies.
 *
 * Marks are 7-byte NOPs in user code:  0f 1f 80 imm32,  imm32 = 0x51420000 | id  begins region id (1 .. 255),
 *                                                       imm32 = 0x51428000 | id  ends it.
 * Kernel means the upper half of the address space. Before the first user-mode instruction everything else is the
 * loader (and the firmware). The first user-mode instruction is the first one that runs in the lower half at or above
 * loader_end after kernel code has run; the loader itself lies below.
 *
 * Arguments: out=FILE (default: standard error), loader_end=ADDRESS (default 0x400000).
 * Output, one item a line:
 *   boot vcpu=C loader=N kernel=N
 *   count region=R vcpu=C user=N kernel=N
 *   visit region=R vcpu=C entry=HEX n=N min=N median=N max=N mode=N mode_n=N total=N
 * A visit is one stay in the kernel from user mode, in instructions from the first one at the entry point to the one
 * that returns, SYSRET or IRET; the SYSCALL instruction itself is the user's.
 *
 * Two properties of QEMU 10.0 under thread=single shape the code. First, blocks are shared among vCPUs, but the vCPU
 * index in them is that of the translating vCPU: so who runs is read from QEMU's thread-local current_cpu. Second,
 * an inline per-vCPU addition in a block translated by any vCPU but 0 computes a wrong address: so blocks translated
 * by vCPU 0 add inline to its slot, which serves as one counter for all, and other blocks call a function.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The part of QEMU's plugin interface, version 4 (QEMU 9.1 and later), that is used here. */
typedef uint64_t plugin_id;
typedef struct block block;
typedef struct instruction instruction;
typedef struct { void *score; size_t offset; } plugin_u64;
typedef struct {
	const char *target;
	struct { int min, cur; } version;
	bool is_system;
	struct { int smp_vcpus, max_vcpus; } system;
} plugin_info;
typedef void execute_fn(unsigned int translating_vcpu, void *argument);

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, block *));
void qemu_plugin_register_vcpu_tb_exec_cb(block *, execute_fn *, int flags, void *argument);
void qemu_plugin_register_vcpu_insn_exec_cb(instruction *, execute_fn *, int flags, void *argument);
void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(instruction *, int operation, plugin_u64, uint64_t operand);
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *argument);
size_t qemu_plugin_tb_n_insns(const block *);
uint64_t qemu_plugin_tb_vaddr(const block *);
instruction *qemu_plugin_tb_get_insn(const block *, size_t index);
size_t qemu_plugin_insn_size(const instruction *);
size_t qemu_plugin_insn_data(const instruction *, void *to, size_t len);
void *qemu_plugin_scoreboard_new(size_t element_size);
void *qemu_plugin_scoreboard_find(void *score, unsigned int vcpu);
void *qemu_get_cpu(int index);
extern __thread void *current_cpu;

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 4;

enum { INLINE_ADD = 0, NO_REGISTERS = 0 };
enum { MAX_VCPUS = 1024, MAX_REGIONS = 256, SLOTS = 4 * MAX_VCPUS };

struct totals { uint64_t user, kernel; };

struct vcpu {
	struct totals done;
	bool in_kernel;
	uint64_t entry;		/* first address of the visit under way, 0 = none seen yet */
	uint64_t kernel_before;	/* done.kernel when it began */
};

struct visit { uint64_t entry, length; unsigned int vcpu; };

struct region { struct totals *at_begin; size_t first_visit; };

static void *score;
static uint64_t called;		/* instructions counted by calls */
static uint64_t booked;		/* of all counted instructions, how many are in some vCPU's totals */

static struct vcpu vcpus[MAX_VCPUS];
static int vcpu_count;
static struct { void *cpu; int index; } known[SLOTS];

static void *running;		/* QEMU's object of the vCPU that runs */
static struct vcpu *runner = vcpus;
static bool runner_in_kernel;
static bool kernel_seen, user_seen;

static struct region regions[MAX_REGIONS];
static int open_regions;
static struct visit *visits;
static size_t visit_count, visit_room;

static uint64_t loader_end = 0x400000;
static FILE *out;

static void *grown(void *old, size_t count, size_t size)
{
	void *new = realloc(old, count * size);

	if (!new) {
		fprintf(stderr, "count plugin: out of memory\n");
		exit(1);
	}
	return new;
}

/* Books the instructions since the last call on the vCPU and the half that executed them. */
static void settle(void)
{
	uint64_t all = called + *(uint64_t *)qemu_plugin_scoreboard_find(score, 0);

	if (runner_in_kernel)
		runner->done.kernel += all - booked;
	else
		runner->done.user += all - booked;
	booked = all;
}

static int index_of(void *cpu)
{
	size_t slot = ((uintptr_t)cpu >> 4) * 0x9e3779b1u % SLOTS;

	while (known[slot].cpu && known[slot].cpu != cpu)
		slot = (slot + 1) % SLOTS;
	if (!known[slot].cpu) {
		int i = 0;

		while (i < vcpu_count - 1 && qemu_get_cpu(i) != cpu)
			i++;
		known[slot].cpu = cpu;
		known[slot].index = i;
	}
	return known[slot].index;
}

static void end_visit(const struct vcpu *v)
{
	if (visit_count == visit_room) {
		visit_room = visit_room ? 2 * visit_room : 4096;
		visits = grown(visits, visit_room, sizeof *visits);
	}
	visits[visit_count++] = (struct visit){ v->entry, v->done.kernel - v->kernel_before, (unsigned int)(v - vcpus) };
}

/* Called before a block runs if another vCPU, or the other half, ran before. */
static void turn(uint64_t address, bool kernel)
{
	settle();
	if (current_cpu != running) {
		running = current_cpu;
		runner = &vcpus[index_of(running)];
	}
	runner_in_kernel = kernel;
	if (runner->in_kernel == kernel)
		return;
	runner->in_kernel = kernel;
	if (kernel) {
		kernel_seen = true;
		runner->entry = address;
		runner->kernel_before = runner->done.kernel;
	} else if (open_regions) {
		end_visit(runner);
	}
}

static void first_user_instruction(void)
{
	user_seen = true;
	for (int i = 0; i < vcpu_count; i++)
		fprintf(out, "boot vcpu=%d loader=%" PRIu64 " kernel=%" PRIu64 "\n", i, vcpus[i].done.user,
			vcpus[i].done.kernel);
	fflush(out);
}

static void run_kernel_block(unsigned int vcpu, void *address)
{
	(void)vcpu;
	if (current_cpu != running || !runner_in_kernel)
		turn((uintptr_t)address, true);
}

static void run_user_block(unsigned int vcpu, void *address)
{
	(void)vcpu;
	if (current_cpu != running || runner_in_kernel)
		turn((uintptr_t)address, false);
	if (!user_seen && kernel_seen && (uintptr_t)address >= loader_end)
		first_user_instruction();
}

static void count_one(unsigned int vcpu, void *unused)
{
	(void)vcpu;
	(void)unused;
	called++;
}

static int by_vcpu_entry_length(const void *left, const void *right)
{
	const struct visit *a = left, *b = right;

	if (a->vcpu != b->vcpu)
		return a->vcpu < b->vcpu ? -1 : 1;
	if (a->entry != b->entry)
		return a->entry < b->entry ? -1 : 1;
	return (a->length > b->length) - (a->length < b->length);
}

/* Prints one group of visits, sorted by length. */
static void print_group(int id, const struct visit *group, size_t n)
{
	uint64_t total = 0, mode = 0;
	size_t mode_n = 0;

	for (size_t i = 0, same = 0; i < n; i++) {
		total += group[i].length;
		same = i && group[i].length == group[i - 1].length ? same + 1 : 1;
		if (same > mode_n) {
			mode_n = same;
			mode = group[i].length;
		}
	}
	fprintf(out, "visit region=%d vcpu=%u entry=%" PRIx64 " n=%zu min=%" PRIu64 " median=%" PRIu64 " max=%" PRIu64
		" mode=%" PRIu64 " mode_n=%zu total=%" PRIu64 "\n", id, group->vcpu, group->entry, n,
		group[0].length, group[n / 2].length, group[n - 1].length, mode, mode_n, total);
}

static void end_region(int id)
{
	struct region *r = &regions[id];
	size_t n = visit_count - r->first_visit;
	struct visit *sorted;

	if (!r->at_begin)
		return;
	for (int i = 0; i < vcpu_count; i++)
		fprintf(out, "count region=%d vcpu=%d user=%" PRIu64 " kernel=%" PRIu64 "\n", id, i,
			vcpus[i].done.user - r->at_begin[i].user, vcpus[i].done.kernel - r->at_begin[i].kernel);
	sorted = grown(NULL, n + 1, sizeof *sorted);
	if (n)
		memcpy(sorted, visits + r->first_visit, n * sizeof *sorted);
	qsort(sorted, n, sizeof *sorted, by_vcpu_entry_length);
	for (size_t from = 0, to; from < n; from = to) {
		for (to = from; to < n && sorted[to].vcpu == sorted[from].vcpu && sorted[to].entry == sorted[from].entry;)
			to++;
		print_group(id, sorted + from, to - from);
	}
	free(sorted);
	fflush(out);
	free(r->at_begin);
	r->at_begin = NULL;
	if (--open_regions == 0)
		visit_count = 0;
}

static void begin_region(int id)
{
	struct region *r = &regions[id];

	if (!r->at_begin) {
		r->at_begin = grown(NULL, vcpu_count, sizeof *r->at_begin);
		open_regions++;
	}
	for (int i = 0; i < vcpu_count; i++)
		r->at_begin[i] = vcpus[i].done;
	r->first_visit = visit_count;
}

static void run_mark(unsigned int vcpu, void *mark)
{
	int id = (uintptr_t)mark & (MAX_REGIONS - 1);

	(void)vcpu;
	settle();
	if ((uintptr_t)mark & 0x8000)
		end_region(id);
	else
		begin_region(id);
}

/* The low half of a mark's immediate, or -1 if the instruction is none. */
static int mark_of(const instruction *insn)
{
	unsigned char b[7];

	if (qemu_plugin_insn_size(insn) != sizeof b || qemu_plugin_insn_data(insn, b, sizeof b) != sizeof b)
		return -1;
	if (b[0] != 0x0f || b[1] != 0x1f || b[2] != 0x80 || b[5] != 0x42 || b[6] != 0x51)
		return -1;
	return b[3] | b[4] << 8;
}

static void translate(plugin_id id, block *tb)
{
	uint64_t address = qemu_plugin_tb_vaddr(tb);
	bool kernel = address >> 63;
	bool by_first = current_cpu == qemu_get_cpu(0);
	size_t n = qemu_plugin_tb_n_insns(tb);
	plugin_u64 counter;

	(void)id;
	if (!score)
		score = qemu_plugin_scoreboard_new(sizeof(uint64_t));
	counter = (plugin_u64){ score, 0 };
	qemu_plugin_register_vcpu_tb_exec_cb(tb, kernel ? run_kernel_block : run_user_block, NO_REGISTERS,
					     (void *)(uintptr_t)address);
	for (size_t i = 0; i < n; i++) {
		instruction *insn = qemu_plugin_tb_get_insn(tb, i);
		int mark = kernel ? -1 : mark_of(insn);

		if (by_first)
			qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, INLINE_ADD, counter, 1);
		else
			qemu_plugin_register_vcpu_insn_exec_cb(insn, count_one, NO_REGISTERS, NULL);
		if (mark >= 0)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, run_mark, NO_REGISTERS, (void *)(intptr_t)mark);
	}
}

static void at_end(plugin_id id, void *unused)
{
	(void)id;
	(void)unused;
	fflush(out);
}

EXPORT int qemu_plugin_install(plugin_id id, const plugin_info *info, int argc, char **argv)
{
	out = stderr;
	for (int i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "out=", 4)) {
			out = fopen(argv[i] + 4, "w");
			if (!out) {
				perror(argv[i] + 4);
				return -1;
			}
		} else if (!strncmp(argv[i], "loader_end=", 11)) {
			loader_end = strtoull(argv[i] + 11, NULL, 0);
		} else {
			fprintf(stderr, "count plugin: unknown argument %s\n", argv[i]);
			return -1;
		}
	}
	vcpu_count = info->system.max_vcpus;
	if (!info->is_system || vcpu_count > MAX_VCPUS) {
		fprintf(stderr, "count plugin: needs system emulation of at most %d vCPUs\n", MAX_VCPUS);
		return -1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
	qemu_plugin_register_atexit_cb(id, at_end, NULL);
	return 0;
}
