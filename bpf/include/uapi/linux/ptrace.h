/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* bcc names it in its programs' prototypes. */
struct pt_regs;
