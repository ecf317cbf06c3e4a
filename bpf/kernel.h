/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* The kernel types that the programs read. CO-RE finds the offset of each field in the running kernel: only names and types matter here. */
#ifndef KERNEL_H
#define KERNEL_H

#define PF_KTHREAD 0x00200000 /* include/linux/sched.h */
#define PF_FORKNOEXEC 0x00000040
#define CLONE_THREAD 0x00010000 /* include/uapi/linux/sched.h */
#define SIGNAL_GROUP_EXIT 0x00000004 /* include/linux/sched/signal.h */
#define SIGKILL 9
#define CORE_DUMPED 0x80 /* wait(2), WCOREDUMP */
#define E2BIG 7
#define EEXIST 17

typedef _Bool bool;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
	int nr_threads;
	int group_exit_code;
	unsigned int flags;
	unsigned long long sum_sched_runtime;
	struct mm_struct *oom_mm;
};

struct kernfs_node {
	__u64 id;
};

struct cgroup_root {
	int hierarchy_id;
};

struct cgroup {
	struct kernfs_node *kn;
	struct cgroup_root *root;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
};

struct css_set {
	struct cgroup_subsys_state *subsys[14];
	struct cgroup *dfl_cgrp;
};

struct sched_entity {
	__u64 sum_exec_runtime;
};

struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
};

typedef struct {
	__u32 val;
} kuid_t;

struct cred {
	kuid_t uid;
};

struct kernel_siginfo {
	int si_code;
};

struct task_struct {
	unsigned int flags;
	struct sched_entity se;
	struct mm_struct *mm;
	int exit_code;
	int tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	__u64 start_time;
	char comm[16];
	struct signal_struct *signal;
	struct css_set *cgroups;
	struct fs_struct *fs;
	struct files_struct *files;
	const struct cred *real_cred;
};

struct qstr {
	__u32 len;
	const unsigned char *name;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
};

struct vfsmount {
	struct dentry *mnt_root;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	struct path f_path;
};

struct fs_struct {
	struct path root;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct linux_binprm {
	struct file *file;
	const char *filename;
	const char *interp;
};

#pragma clang attribute pop

enum cgroup_subsys_id { pids_cgrp_id = 9 };

#endif
