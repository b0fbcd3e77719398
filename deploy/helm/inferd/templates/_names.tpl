{{- define "inferd.labels" -}}
app.kubernetes.io/name: {{ .Release.Name }}
{{- end }}

{{- define "inferd.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* A change of the settings gets a new name, so the pods that read them are replaced. */}}
{{- define "inferd.config" -}}
{{ .Release.Name }}-config-{{ toYaml .Values.config | sha256sum | trunc 10 }}
{{- end }}
