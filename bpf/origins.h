/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only) */
/* For whom processes ran, for lifecycle.bpf.c: their cgroup, user, parent, and spawner. */
#ifndef ORIGINS_H
#define ORIGINS_H

/* The cgroup of a task, also after its exit: a zombie keeps it (kernel/cgroup/cgroup.c, cgroup_task_exit()). */
static __always_inline __u64 cgroup_of(struct task_struct *task)
{
	struct cgroup_subsys_state *state = 0;
	void *at;

	if (!config.pids_cgroups)
		return task->cgroups->dfl_cgrp->kn->id;
	at = (void *)task->cgroups + bpf_core_field_offset(struct css_set, subsys);
	at += bpf_core_enum_value(enum cgroup_subsys_id, pids_cgrp_id) * sizeof(state);
	bpf_probe_read_kernel(&state, sizeof(state), at);
	return state ? BPF_CORE_READ(state, cgroup, kn, id) : 0;
}

/* The nearest ancestor that is older than the threshold of short processes. Its name is never guessed: after `MAX_HOPS` it is `deep`.
 * Returns it, or 0.
 */
static __always_inline struct task_struct *find_spawner(struct origin *origin, struct task_struct *parent, __u64 now)
{
	struct task_struct *each = parent;
	int i;

#pragma unroll
	for (i = 0; i < MAX_HOPS; i++) {
		if (now - each->start_time >= config.threshold_ns) {
			read_name(&origin->spawner, each, each->flags & PF_KTHREAD);
			return each;
		}
		each = each->real_parent->group_leader;
	}
	origin->spawner_state = SPAWNER_DEEP;
	return 0;
}

static __always_inline struct origin_counts *insert_origin(void *origins, const struct origin *origin)
{
	int err = bpf_map_update_elem(origins, origin, (const void *)&config.no_origin, BPF_NOEXIST);
	struct origin_counts *counts = bpf_map_lookup_elem(origins, origin);
	struct cpu *cpu = this_cpu();

	if (cpu && !err)
		ADD(cpu->entered, 1);
	if (cpu && !counts)
		ADD(cpu->lost[LOST_ORIGINS_FULL], 1);
	return counts ?: &shared.other_origin;
}

static __always_inline struct origin_counts *origin_counts_of(const struct origin *origin)
{
	struct origin_counts *counts;

	if (control.active) {
		counts = bpf_map_lookup_elem(&origins_b, origin);
		return counts ?: insert_origin(&origins_b, origin);
	}
	asm volatile(""); /* see counts_of() */
	counts = bpf_map_lookup_elem(&origins_a, origin);
	return counts ?: insert_origin(&origins_a, origin);
}

static __always_inline struct cgroup_counts *insert_cgroup(void *cgroups, const struct cgroup_key *key)
{
	const struct cgroup_counts none = {};
	struct cgroup_counts *counts;

	bpf_map_update_elem(cgroups, key, &none, BPF_NOEXIST);
	counts = bpf_map_lookup_elem(cgroups, key);
	return counts ?: &shared.other_cgroup;
}

static __always_inline struct cgroup_counts *cgroup_counts_of(__u64 cgroup)
{
	const struct cgroup_key key = {.cgroup = cgroup};
	struct cgroup_counts *counts;

	if (control.active) {
		counts = bpf_map_lookup_elem(&cgroup_counts_b, &key);
		return counts ?: insert_cgroup(&cgroup_counts_b, &key);
	}
	asm volatile("");
	counts = bpf_map_lookup_elem(&cgroup_counts_a, &key);
	return counts ?: insert_cgroup(&cgroup_counts_a, &key);
}

/* Not static, so that the verifier follows it once, not in each state of its caller. */
__noinline int count_oom_kill(__u64 cgroup)
{
	ADD(cgroup_counts_of(cgroup)->oom_kills, 1);
	return 0;
}

/* Before any process can be inside. The path is that of the host, whatever the cgroup namespace. */
SEC("tp_btf/cgroup_mkdir")
int on_mkdir(__u64 *ctx)
{
	struct cgroup *cgroup = (void *)ctx[0];
	struct cgroup_path *path;
	__u64 id;

	if (!config.origins || cgroup->root->hierarchy_id != (int)config.hierarchy_id)
		return 0;
	id = cgroup->kn->id;
	bpf_map_update_elem(&cgroup_paths, &id, (const void *)&config.no_path, BPF_ANY);
	path = bpf_map_lookup_elem(&cgroup_paths, &id);
	if (path)
		bpf_probe_read_kernel_str(path->path, sizeof(path->path), (void *)ctx[1]);
	return 0;
}

#endif
