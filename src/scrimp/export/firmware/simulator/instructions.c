/* A plugin of QEMU's translator: how often each instruction of the guest ran, summed by symbol.
 *
 *   gcc -O2 -fPIC -shared instructions.c -o instructions.so
 *   qemu-system-arm … -plugin ./instructions.so,out=counts.tsv
 *
 * writes "count TAB symbol" lines. What of the interface (version 1) is used is declared here: distributions leave
 * its header out. Counts are exact and the same in every run. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info;
enum { NO_REGISTERS = 0, ADD_U64 = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*call)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn, int operation, void *at, uint64_t add);
void qemu_plugin_register_atexit_cb(plugin_id id, void (*call)(plugin_id, void *), void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t i);
const char *qemu_plugin_insn_symbol(const struct qemu_plugin_insn *insn);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

struct counter {
    uint64_t count;
    char *symbol;
    struct counter *next;
};

static struct counter *counters;
static char path[4096] = "counts.tsv";

/* One per symbol, which never moves: translated code adds to it. */
static struct counter *counter_of(const char *symbol)
{
    struct counter *at;
    for (at = counters; at; at = at->next)
        if (!strcmp(at->symbol, symbol))
            return at;
    at = calloc(1, sizeof *at);
    at->symbol = strdup(symbol);
    at->next = counters;
    return counters = at;
}

static void translated(plugin_id id, struct qemu_plugin_tb *tb)
{
    size_t i, n = qemu_plugin_tb_n_insns(tb);
    (void)id;
    for (i = 0; i < n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        const char *symbol = qemu_plugin_insn_symbol(insn);
        qemu_plugin_register_vcpu_insn_exec_inline(insn, ADD_U64, &counter_of(symbol ? symbol : "?")->count, 1);
    }
}

static void finished(plugin_id id, void *data)
{
    FILE *out = fopen(path, "w");
    struct counter *at;
    (void)id;
    (void)data;
    if (!out)
        return;
    for (at = counters; at; at = at->next)
        fprintf(out, "%llu\t%s\n", (unsigned long long)at->count, at->symbol);
    fclose(out);
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const struct qemu_info *info, int argc,
                                                               char **argv)
{
    int i;
    (void)info;
    for (i = 0; i < argc; i++)
        if (!strncmp(argv[i], "out=", 4))
            snprintf(path, sizeof path, "%s", argv[i] + 4);
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finished, NULL);
    return 0;
}
