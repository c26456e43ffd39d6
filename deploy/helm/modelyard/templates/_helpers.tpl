{{- define "modelyard.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "modelyard.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "modelyard.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "modelyard.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "modelyard.selector" -}}
app.kubernetes.io/name: {{ include "modelyard.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "modelyard.labels" -}}
{{ include "modelyard.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- /* Takes (dict "root" $ "image" "site"). */ -}}
{{- define "modelyard.image" -}}
{{- $image := .root.Values.image -}}
{{- $tag := default .root.Chart.AppVersion $image.tag -}}
{{- if eq .image "engine" }}{{ $tag = default $tag .root.Values.engine.tag }}{{ end -}}
{{- with $image.registry }}{{ trimSuffix "/" . }}/{{ end }}modelyard-{{ .image }}:{{ $tag }}
{{- end -}}

{{- define "modelyard.host" -}}
{{- with .Values.publicUrl }}{{ (urlParse .).hostname }}{{ end -}}
{{- end -}}

{{- /* Whether the database is in the volume, and not elsewhere. */ -}}
{{- define "modelyard.usesSqlite" -}}
{{- if not (and .Values.secrets.existingSecret (has "DATABASE_URL" .Values.secrets.files)) }}true{{ end -}}
{{- end -}}

{{- define "modelyard.devices" -}}
{{- $gpus := int .Values.engine.gpus -}}
{{- if $gpus -}}
{{- range $number := until $gpus }}{{ if $number }},{{ end }}cuda:{{ $number }}{{ end -}}
{{- else -}}
cpu
{{- end -}}
{{- end -}}

{{- define "modelyard.podSecurity" -}}
runAsNonRoot: true
fsGroup: 10001
# The home's group stays as it is once the volume's root has it: a large home starts at once.
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "modelyard.containerSecurity" -}}
runAsNonRoot: true
runAsUser: {{ get (dict "gateway" 10002 "engine" 10003 "site" 10001) . }}
runAsGroup: 10001
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* The environment of a process. Takes (dict "root" $ "process" "site" "django" true). */ -}}
{{- define "modelyard.environment" -}}
{{- $values := .root.Values -}}
{{- $own := dict
  "MODELYARD_HOME" "/var/lib/modelyard"
  "MODELYARD_HOST" "0.0.0.0"
  "MODELYARD_PORT" "8000"
  "MODELYARD_OPERATOR_HOST" "0.0.0.0"
  "MODELYARD_OPERATOR_PORT" "8001"
  "MODELYARD_GRPC_PORT" (ternary "8002" "0" $values.grpc.enabled)
  "MODELYARD_GATEWAYS" (toString $values.gateways)
  "MODELYARD_SITE_WORKERS" (toString $values.siteWorkers)
  "LOG_TO" "stdout"
-}}
{{- /* `modelyard run` names the others itself, and commands of people must have no name. */ -}}
{{- if hasPrefix "gateway" .process }}{{ $_ := set $own "MODELYARD_PROCESS" .process }}{{ end -}}
{{- /* Callers in the cluster use the names of the Service. */ -}}
{{- $service := include "modelyard.fullname" .root -}}
{{- $inside := printf "%s.%s" $service .root.Release.Namespace -}}
{{- $hosts := list "127.0.0.1" "localhost" $service $inside (printf "%s.svc" $inside) -}}
{{- with include "modelyard.host" .root }}{{ $hosts = prepend $hosts . }}{{ end -}}
{{- $_ := set $own "ALLOWED_HOSTS" (join "," $hosts) -}}
{{- with $values.publicUrl -}}
{{- $_ := set $own "MODELYARD_PUBLIC_URL" (trimSuffix "/" .) -}}
{{- $_ := set $own "HTTPS" (toString (hasPrefix "https://" .)) -}}
{{- end -}}
{{- with $values.trustedProxies -}}
{{- $_ := set $own "MODELYARD_TRUSTED_PROXIES" (join "," .) -}}
{{- end -}}
{{- if and (hasPrefix "gateway" .process) $values.grpc.tlsSecret -}}
{{- $_ := set $own "MODELYARD_GRPC_CERTIFICATE_FILE" "/run/secrets/grpc/tls.crt" -}}
{{- $_ := set $own "MODELYARD_GRPC_KEY_FILE" "/run/secrets/grpc/tls.key" -}}
{{- if $values.grpc.clientCertificates -}}
{{- $_ := set $own "MODELYARD_GRPC_CLIENT_CA_FILE" "/run/secrets/grpc/ca.crt" -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := merge $own $values.settings }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- if and .django $values.secrets.existingSecret }}
{{- range $values.secrets.files }}
- {name: {{ . }}_FILE, value: /run/secrets/modelyard/{{ . }}}
{{- end }}
{{- range $values.secrets.environment }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $values.secrets.existingSecret }}, key: {{ . }}}}
{{- end }}
{{- end }}
{{- end -}}

{{- /*
Gateways see neither secret key nor uploads, jobs and artifacts; engines see their
artifacts and sockets. What they may only read has the value true.
*/ -}}
{{- define "modelyard.parts" -}}
gateway: {run: false, spool: false, relayed: false, snapshot: true}
engine: {run: false, engine: false, logs: false, scratch: false, artifacts: true, environments: true}
{{- end -}}

{{- define "modelyard.mounts" -}}
{{- $parts := default dict (get (fromYaml (include "modelyard.parts" .)) .image) }}
{{- range $part, $readOnly := $parts }}
- {name: home, mountPath: /var/lib/modelyard/{{ $part }}, subPath: {{ $part }}, readOnly: {{ $readOnly }}}
{{- else }}
- {name: home, mountPath: /var/lib/modelyard}
{{- end }}
- {name: tmp-{{ .process }}, mountPath: /tmp}
{{- if and .django .root.Values.secrets.existingSecret }}
- {name: secrets, mountPath: /run/secrets/modelyard, readOnly: true}
{{- end }}
{{- if and (hasPrefix "gateway" .process) .root.Values.grpc.tlsSecret }}
- {name: grpc-certificate, mountPath: /run/secrets/grpc, readOnly: true}
{{- end }}
{{- end -}}

{{- /* A volume for each of the given names, and what all Pods mount. */ -}}
{{- define "modelyard.volumes" -}}
{{- range .processes }}
- {name: tmp-{{ . }}, emptyDir: {sizeLimit: {{ $.root.Values.temporarySize }}}}
{{- end }}
{{- with .root.Values.secrets.existingSecret }}
- name: secrets
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items:
    {{- range $.root.Values.secrets.files }}
      - {key: {{ . }}, path: {{ . }}}
    {{- end }}
{{- end }}
{{- end -}}

{{- /*
One container. Takes (dict "root" $ "process" "gateway-2" "kind" "gateway" "image"
"gateway" "command" (list …) "django" false).
*/ -}}
{{- define "modelyard.container" -}}
name: {{ .process }}
image: {{ include "modelyard.image" . }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
command: {{ toJson .command }}
# Python looks for modules here, so not the home, where engines may write.
workingDir: /
securityContext: {{- include "modelyard.containerSecurity" .image | nindent 2 }}
env: {{- include "modelyard.environment" . | trim | nindent 2 }}
{{- $resources := deepCopy (get .root.Values.resources .kind) }}
{{- if and (eq .kind "host") (int .root.Values.engine.gpus) }}
{{- $gpus := dict .root.Values.engine.gpuResource (toString .root.Values.engine.gpus) }}
{{- $_ := set $resources "limits" (merge $gpus (default dict $resources.limits)) }}
{{- end }}
resources: {{- toYaml $resources | nindent 2 }}
volumeMounts: {{- include "modelyard.mounts" . | trim | nindent 2 }}
{{- /* That of the controller needs the database: to start it again would mend nothing. */ -}}
{{- if has .kind (list "gateway" "host" "internal" "site" "worker" "beat") }}
livenessProbe:
  exec: {command: [python, -m, inference.installation.healthy, {{ .kind }}]}
  initialDelaySeconds: 60
  periodSeconds: 15
  timeoutSeconds: 10
  failureThreshold: 6
{{- end }}
{{- end -}}

{{- define "modelyard.scheduling" -}}
serviceAccountName: {{ .account }}
automountServiceAccountToken: false
# A Service named modelyard would set MODELYARD_PORT, which is a setting.
enableServiceLinks: false
securityContext: {{- include "modelyard.podSecurity" .root | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - {name: {{ . }}}
{{- end }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}
