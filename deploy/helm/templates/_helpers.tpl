{{- define "shortproc-exporter.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "shortproc-exporter.fullname" -}}
{{- $name := include "shortproc-exporter.name" . }}
{{- $both := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- .Values.fullnameOverride | default $both | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "shortproc-exporter.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace }}
{{- end }}

{{- define "shortproc-exporter.selectorLabels" -}}
app.kubernetes.io/name: {{ include "shortproc-exporter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "shortproc-exporter.labels" -}}
{{ include "shortproc-exporter.selectorLabels" . }}
app.kubernetes.io/component: metrics
app.kubernetes.io/part-of: {{ include "shortproc-exporter.name" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- if .Values.releaseLabel }}
release: {{ .Release.Name }}
{{- end }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "shortproc-exporter.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "shortproc-exporter.fullname" .) "default") }}
{{- end }}

{{- define "shortproc-exporter.image" -}}
{{- $registry := .Values.global.imageRegistry | default .Values.image.registry }}
{{- $reference := .Values.image.digest | default (.Values.image.tag | default .Chart.AppVersion) }}
{{- $registry | empty | ternary "" (printf "%s/" $registry) }}{{ .Values.image.repository }}{{ .Values.image.digest | empty | ternary ":" "@" }}{{ $reference }}
{{- end }}

{{- define "shortproc-exporter.imagePullSecrets" -}}
{{- range concat .Values.global.imagePullSecrets .Values.imagePullSecrets }}
- name: {{ kindIs "map" . | ternary (get (kindIs "map" . | ternary . dict) "name") . }}
{{- end }}
{{- end }}

{{- /* The names of the node's users are where the DaemonSet mounts them. */}}
{{- define "shortproc-exporter.config" -}}
{{- $base := .Values.hostMounts | ternary (dict "attribution" (dict "passwd_file" "/host/etc/passwd")) dict }}
{{- toYaml (mergeOverwrite $base .Values.config) }}
{{- end }}

{{- /* A probe, from a dict of "probe", "path" and "root". */}}
{{- define "shortproc-exporter.probe" -}}
{{- if not (or .probe.httpGet .probe.tcpSocket .probe.exec) }}
httpGet:
  path: {{ .path }}
  port: metrics
  scheme: {{ .root.Values.webConfig.scheme }}
  {{- with .root.Values.webConfig.probeHeaders }}
  httpHeaders:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{ toYaml .probe }}
{{- end }}

{{- /* What Service- and PodMonitor say of an endpoint, from a dict of "monitor" and "root". */}}
{{- define "shortproc-exporter.endpoint" -}}
scheme: {{ .root.Values.webConfig.scheme | lower }}
interval: {{ .monitor.interval }}
scrapeTimeout: {{ .monitor.scrapeTimeout }}
# The labels namespace, pod and container of the metrics by owner are those of the owner, not of this pod
honorLabels: true
{{- with .monitor.tlsConfig }}
tlsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .monitor.basicAuth }}
basicAuth:
  {{- toYaml . | nindent 2 }}
{{- end }}
relabelings:
  # A node keeps its series when its pod is replaced: the node's name is the instance
  - sourceLabels: [__meta_kubernetes_pod_node_name]
    targetLabel: instance
  - action: labeldrop
    regex: pod|container|endpoint|service
  {{- with .monitor.relabelings }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .monitor.metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* The rest of a monitor, from the same dict. */}}
{{- define "shortproc-exporter.monitor" -}}
selector:
  matchLabels:
    {{- include "shortproc-exporter.selectorLabels" .root | nindent 4 }}
namespaceSelector:
  matchNames:
    - {{ include "shortproc-exporter.namespace" .root }}
{{- with .monitor.jobLabel }}
jobLabel: {{ . }}
{{- end }}
{{- with .monitor.sampleLimit }}
sampleLimit: {{ int . }}
{{- end }}
{{- end }}
