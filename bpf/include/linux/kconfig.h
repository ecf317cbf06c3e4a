/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* bcc includes it first of all, and refuses a kernel whose configuration has no bpf(2). */
#define CONFIG_BPF_SYSCALL 1
