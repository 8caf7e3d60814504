"""Manifests that tests of several rooms use: the control-plane document's own, as printed there, and the Agent between them."""

from __future__ import annotations

TEMPLATE = """\
apiVersion: talon.dev/v1alpha1
kind: AgentTemplate
metadata:
  name: customer-support
  namespace: acme
definition:
  customSpec:
    features:
      - name: customer_id
        type: string
        required: true
    modelPolicy:
      profiles:
        - name: primary
          model:
            provider: openai
            name: gpt-4o
            temperature: 0.2
    systemPrompt: |
      You are the support runtime for Acme.
      Use customer_id to retrieve context and act safely.
    mcpServerRefs:
      - stripe-readonly
      - hubspot-readonly
"""

AGENT = """\
apiVersion: talon.dev/v1alpha1
kind: Agent
metadata:
  name: customer-support
  namespace: acme
spec:
  templateRef: customer-support
  features:
    customer_id: cus_1
"""

SESSION = """\
id: enterprise-renewals
agent: customer-support
ns: acme
status: active
metadata:
  owner: revenue-ops
messages:
  - role: user
    content: Review renewals due in 14 days.
  - role: assistant
    content: Drafting account-by-account follow-ups.
stream:
  - step: load-knowledge
  - step: call-stripe
  - step: write-next-message
"""

SCHEDULE = """\
name: renewal-check
ns: acme
spec:
  kind: cron
  cron: "0 14 * * 1-5"
  timezone: America/Los_Angeles
  target:
    agent: customer-support
    sessionMode: named
    sessionId: enterprise-renewals
  inputMessage: |
    Review accounts renewing in the next 14 days and draft follow-ups.
  enabled: true
"""

ALL = "---\n".join((TEMPLATE, AGENT, SESSION))
