# bash completion for shortproc-exporter. Written by `make docs`

_shortproc_exporter() {
	local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} flag='' command='' each
	for each in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
		case $each in snoop|top|doctor|check-config) command=$each && break ;; esac
	done
	# COMP_WORDBREAKS has =, so --flag=value is three words
	if [[ $word == = ]]; then
		flag=$before word=''
	elif [[ $before == = ]]; then
		flag=${COMP_WORDS[COMP_CWORD - 2]}
	elif [[ $before == --* ]]; then
		flag=$before
	fi
	case $command$flag in
	*--config.file) compopt -o filenames && mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
	*--mode) mapfile -t COMPREPLY < <(compgen -W 'auto ebpf_core ebpf_bcc netlink fast_scan scan' -- "$word") && return ;;
	*--web.listen-address) return ;;
	*--web.telemetry-path) return ;;
	*--web.config.file) compopt -o filenames && mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
	*--log.level) mapfile -t COMPREPLY < <(compgen -W 'debug info warn error' -- "$word") && return ;;
	*--log.format) mapfile -t COMPREPLY < <(compgen -W 'logfmt json' -- "$word") && return ;;
	*--path.procfs) compopt -o filenames && mapfile -t COMPREPLY < <(compgen -d -- "$word") && return ;;
	*--comm) return ;;
	*--parent) return ;;
	*--exe) return ;;
	*--cgroup) return ;;
	*--spawner) return ;;
	*--user) return ;;
	*--unit) return ;;
	*--namespace) return ;;
	*--pod) return ;;
	*--container) return ;;
	*--uid) return ;;
	*--pid) return ;;
	*--ppid) return ;;
	*--outcome) mapfile -t COMPREPLY < <(compgen -W 'ok error signal unknown' -- "$word") && return ;;
	*--min-runtime) return ;;
	*--max-runtime) return ;;
	*--url) return ;;
	*--count) return ;;
	*--duration) return ;;
	*--from) compopt -o filenames && mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
	*--since) return ;;
	*--until) return ;;
	snoop--sort) mapfile -t COMPREPLY < <(compgen -W 'time pid ppid comm runtime cpu outcome parent spawner user owner exe' -- "$word") && return ;;
	top--sort) mapfile -t COMPREPLY < <(compgen -W 'rate failed cpu p99' -- "$word") && return ;;
	*--folded) mapfile -t COMPREPLY < <(compgen -W 'processes cpu runtime' -- "$word") && return ;;
	*--by) mapfile -t COMPREPLY < <(compgen -W 'name owner spawner user parent tree' -- "$word") && return ;;
	*--require) mapfile -t COMPREPLY < <(compgen -W 'ebpf_core ebpf_bcc netlink fast_scan scan' -- "$word") && return ;;
	esac
	case $command in
	'') mapfile -t COMPREPLY < <(compgen -W 'snoop top doctor check-config --config.file= --mode= --web.listen-address= --web.telemetry-path= --web.config.file= --log.level= --log.format= --path.procfs= --no-ebpf --fast-scan --version --help' -- "$word") ;;
	snoop) mapfile -t COMPREPLY < <(compgen -W '--comm= --parent= --exe= --cgroup= --spawner= --user= --unit= --namespace= --pod= --container= --uid= --pid= --ppid= --outcome= --min-runtime= --max-runtime= --url= --count= --duration= --from= --since= --until= --sort= --wide --args --json --tree --folded --config.file= --mode= --log.level= --log.format= --path.procfs= --no-ebpf --fast-scan --version --help' -- "$word") ;;
	top) mapfile -t COMPREPLY < <(compgen -W '--comm= --parent= --exe= --cgroup= --spawner= --user= --unit= --namespace= --pod= --container= --uid= --pid= --ppid= --outcome= --min-runtime= --max-runtime= --url= --by= --sort= --once --duration= --count= --config.file= --mode= --log.level= --log.format= --path.procfs= --no-ebpf --fast-scan --version --help' -- "$word") ;;
	doctor) mapfile -t COMPREPLY < <(compgen -W '--json --require= --config.file= --mode= --log.level= --log.format= --path.procfs= --no-ebpf --fast-scan --version --help' -- "$word") ;;
	check-config) mapfile -t COMPREPLY < <(compgen -W '--config.file= --mode= --web.listen-address= --web.telemetry-path= --web.config.file= --log.level= --log.format= --path.procfs= --no-ebpf --fast-scan --version --help' -- "$word") && [[ $word == -* ]] || mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
	esac
	[[ ${COMPREPLY[*]} != *= ]] || compopt -o nospace
}
complete -F _shortproc_exporter shortproc-exporter
