"""The text files of the kits: settings, service units and first steps."""

from __future__ import annotations

COORDINATOR_FILE = """\
# The coordinator's own settings. Partners connect to `port`; `control_port` is for commands on
# this machine only.
version: 1
host: 0.0.0.0
port: {port}
control_port: {control_port}
directory: state
"""

PARTNER_FILE = """\
# This partner's own settings. Nothing in this file leaves this machine.
version: 1
name: "{name}"
server: "{server}"
# The folder for ledger, caches and identity, relative to this file. Back up the ledger.
directory: state
# The source of the texts: {sources}. See docs/data.md.
data:
  source: csv
  path: FILL-IN.csv
  columns:
    text: text
    label: label
    groups: []
  labels: [negative, positive]
  validation_fraction: 0.1
# The text of a row and this number decide whether the row is for training or for validation.
# Never change it: rows that were validated on before would be trained on.
split_seed: 0
# The models that may be trained, as NAME: PLACE. NAME is what a run requests as model.base. PLACE
# is `embedded` (the packaged MiniLM), a folder, or a hub id as NAME@REVISION; only this revision
# is downloaded.
models:
  embedded: embedded
policy:
  # The privacy budget of this data set over its whole lifetime, for all runs together.
  lifetime: {{epsilon: 8.0, delta: 1.0e-5}}
  allow_non_private: false
  allow_exact_metrics: false
  # Personal models (train.ditto_lambda) are trained without noise and stay on this machine.
  allow_personal_models: false
  tasks: [classification]
  columns:
    text: [text]
    label: [label]
    groups: []
"""

PARTNER_UNIT = """\
# Copy this file to /etc/systemd/system/ and the kit to /etc/fedaccord, and create the user
# `fedaccord`.
[Unit]
Description=fedaccord partner
After=network-online.target
Wants=network-online.target

[Service]
User=fedaccord
# If fedaccord is installed in a virtual environment, write its full path here.
ExecStart=/usr/bin/env fedaccord partner start /etc/fedaccord/partner.yaml
EnvironmentFile=-/etc/fedaccord/environment
Restart=on-failure
RestartSec=30
KillMode=mixed
TimeoutStopSec=60
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths=/etc/fedaccord

[Install]
WantedBy=multi-user.target
"""

SERVER_UNIT = """\
# Copy this file to /etc/systemd/system/ and this folder to /etc/fedaccord, and create the user
# `fedaccord`.
[Unit]
Description=fedaccord coordinator
After=network-online.target
Wants=network-online.target

[Service]
User=fedaccord
# If fedaccord is installed in a virtual environment, write its full path here.
ExecStart=/usr/bin/env fedaccord server start /etc/fedaccord/coordinator.yaml
Restart=on-failure
RestartSec=10
KillMode=mixed
TimeoutStopSec=60
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths=/etc/fedaccord

[Install]
WantedBy=multi-user.target
"""

PARTNER_README = """\
Kit of the partner {name}. node.key is secret: whoever has it can act as {name}.

1. Unpack this archive in a folder that only the service's user can read.
2. Fill in partner.yaml: the source of your texts, and your policy.
3. fedaccord partner check partner.yaml
4. fedaccord partner start partner.yaml      (or install fedaccord-partner.service)

The partner needs outgoing TCP connections to {server}. It accepts no incoming connections.
"""

SERVER_README = """\
The coordinator's kit. server.key is secret. The authority's key is not in this kit: keep it on
another machine.

1. fedaccord server start coordinator.yaml     (or install fedaccord-server.service)
2. fedaccord status coordinator.yaml
3. fedaccord submit coordinator.yaml [KEY=VALUE ...]

Partners must be able to reach `port`; `control_port` accepts connections from this machine only.
"""
