{{- define "fixture.name" -}}
{{- if contains .Chart.Name .Release.Name -}}{{ .Release.Name }}{{- else -}}{{ .Release.Name }}-{{ .Chart.Name }}{{- end -}}
{{- end -}}

{{- define "fixture.labels" -}}
app: {{ include "fixture.name" . }}
chart: {{ .Chart.Name }}-{{ .Chart.Version }}
release: {{ .Release.Name }}
heritage: {{ .Release.Service }}
{{- end -}}

{{- define "fixture.manager" -}}
{{ include "fixture.name" . }}-manager.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end -}}
