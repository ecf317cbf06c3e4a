/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* The path of a file that was executed by its descriptor (fexecve), for lifecycle.bpf.c: the kernel's own name for it is /dev/fd/N. */
#ifndef EXE_PATH_H
#define EXE_PATH_H

#define BY_FD "/dev/fd/"
#define BY_FD_LEN (sizeof(BY_FD) - 1)
#define FD_DIGITS 10
#define MAX_DEPTH 32 /* directories and mounts */

/* One compare, of a word that is in the cache, for it was just written. */
static __always_inline bool is_by_fd(const struct exe *exe)
{
	__u64 first, wanted;

	__builtin_memcpy(&first, exe->path, sizeof(first));
	__builtin_memcpy(&wanted, BY_FD, sizeof(wanted));
	return first == wanted;
}

/* Of a script, the kernel has the file of its interpreter. But the script is still open, or its interpreter could not read it. */
static __always_inline struct file *executed_file(struct exe *exe, struct task_struct *task, struct linux_binprm *bprm)
{
	struct file **files, *file = 0;
	struct fdtable *table;
	__u32 i, fd = 0;

	if (BPF_CORE_READ(bprm, interp) == BPF_CORE_READ(bprm, filename))
		return BPF_CORE_READ(bprm, file);
	for (i = BY_FD_LEN; i < BY_FD_LEN + FD_DIGITS && exe->path[i]; i++) {
		if (exe->path[i] < '0' || exe->path[i] > '9')
			return 0; /* /dev/fd/N/name, below an open directory */
		fd = fd * 10 + exe->path[i] - '0';
	}
	table = BPF_CORE_READ(task, files, fdt);
	if (fd >= BPF_CORE_READ(table, max_fds))
		return 0;
	files = BPF_CORE_READ(table, fd);
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	return file;
}

/* Puts a name before what is in the buffer; false if there is no room. The place is kept in a map, where the verifier does not follow its
 * value, or it would follow every sum of lengths.
 */
static __always_inline bool prepend(struct path_buffer *buffer, const struct dentry *dentry)
{
	__u64 len = BPF_CORE_READ(dentry, d_name.len);

	if (len >= buffer->start)
		return 0;
	buffer->start -= len;
	asm volatile("" : "+r"(len)); /* so that the compiler leaves the mask, which the verifier needs */
	bpf_probe_read_kernel(&buffer->path[buffer->start & (EXE_LEN - 1)], len & (EXE_LEN - 1), BPF_CORE_READ(dentry, d_name.name));
	return 1;
}

static __always_inline struct mount *mount_of(struct vfsmount *inside)
{
	return (void *)inside - bpf_core_field_offset(struct mount, mnt);
}

/* Replaces /dev/fd/N by the path as the process sees it, as d_path() does. It stays where the path is too long or too deep. */
static __noinline int find_path(struct exe *exe, struct task_struct *task, struct linux_binprm *bprm)
{
	struct file *file = executed_file(exe, task, bprm);
	struct dentry *dentry, *parent, *root;
	struct mount *mount, *above, *root_mount;
	struct path_buffer *buffer;
	const __u32 zero = 0;
	int i;

	buffer = bpf_map_lookup_elem(&path_buffers, &zero);
	if (!file || !buffer || !bpf_core_field_exists(struct mount, mnt_parent) || !bpf_core_field_exists(struct mount, mnt_mountpoint))
		return 0;
	buffer->start = EXE_LEN - 1;
	dentry = BPF_CORE_READ(file, f_path.dentry);
	mount = mount_of(BPF_CORE_READ(file, f_path.mnt));
	root = BPF_CORE_READ(task, fs, root.dentry);
	root_mount = mount_of(BPF_CORE_READ(task, fs, root.mnt));
	for (i = 0; i < MAX_DEPTH; i++) {
		if (dentry == root && mount == root_mount)
			goto found;
		if (dentry == BPF_CORE_READ(mount, mnt.mnt_root)) {
			above = BPF_CORE_READ(mount, mnt_parent);
			if (above == mount)
				goto found;
			dentry = BPF_CORE_READ(mount, mnt_mountpoint);
			mount = above;
			continue;
		}
		if (!prepend(buffer, dentry))
			return 0;
		parent = BPF_CORE_READ(dentry, d_parent);
		if (parent == dentry) /* in no directory: memfd:name */
			goto found;
		buffer->start--;
		buffer->path[buffer->start & (EXE_LEN - 1)] = '/';
		dentry = parent;
	}
	return 0;
found:
	bpf_probe_read_kernel_str(exe->path, sizeof(exe->path), &buffer->path[buffer->start & (EXE_LEN - 1)]);
	return 0;
}

#endif
