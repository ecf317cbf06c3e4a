/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* bcc asks only whether the kernel is newer than 4.8, and the kernel asks the version of kprobes alone. */
#define KERNEL_VERSION(major, minor, patch) (((major) << 16) + ((minor) << 8) + (patch))
#define LINUX_VERSION_CODE KERNEL_VERSION(4, 18, 0)
