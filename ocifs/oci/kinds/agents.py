"""Kinds of artifact for agents and their tools: skills, MCP catalogs, sandboxes.

Part of the table in table.py; its rules hold here.
"""

from __future__ import annotations

from ocifs.oci.kinds.kind import ArtifactKind

_MCP = "application/vnd.docker.mcp."
_KIT = "application/vnd.docker.sandbox.kit."

_SKILLS = ("*.skill.*", "*.skills.*", "*/skill.*", "application/vnd.agentskills.*", "*.skill")
_PLUGINS = (
    "dev.toolhive.plugins.*",
    "application/vnd.agentregistry.plugin.*",
    "application/vnd.agentpackage.plugin.*",
)
_RECORDS = ("application/vnd.agntcy.record.*", "application/vnd.agntcy.oasf.*")

AGENTS = (
    ArtifactKind(
        # Its layers describe the skills of an agent, and the row of skills must follow.
        "agntcy-record",
        "Record of an agent in the AGNTCY Directory",
        types=_RECORDS,
        layer_types=_RECORDS,
    ),
    ArtifactKind(
        "agent-card",
        "Description of an agent or of its servers",
        types=(
            "application/vnd.a2a.card.*",
            "application/vnd.mcp.card.*",
            "application/a2a-agent-card+json",
            "application/mcp-server-card+json",
        ),
        file_names=(
            ("application/vnd.a2a.card.*", "a2a-card.json"),
            ("application/a2a-agent-card+json", "agent-card.json"),
            ("application/vnd.mcp.card.*", "mcp-card.json"),
            ("application/mcp-server-card+json", "server-card.json"),
        ),
    ),
    ArtifactKind(
        "agent-skill",
        "Skill for an agent",
        # There is no standard yet: ACR, RamaLama, skr, ToolHive and others have types of their own.
        types=_SKILLS,
        index_types=_SKILLS,
        layer_types=_SKILLS,
        is_image=True,
        file_names=(
            *((f"{pattern}tar*", "skill/") for pattern in _SKILLS if pattern.endswith("*")),
            ("application/vnd.oci.image.layer.*", "skill/"),
            ("*markdown", "SKILL.md"),
            ("*+md", "SKILL.md"),
        ),
    ),
    ArtifactKind(
        "agent-plugin",
        "Plugin for an agent: skills, commands, hooks and servers",
        types=_PLUGINS,
        index_types=_PLUGINS,
        is_image=True,
        file_names=(
            ("application/vnd.oci.image.layer.*", "plugin/"),
            *((f"{pattern}tar*", "plugin/") for pattern in _PLUGINS),
        ),
    ),
    ArtifactKind(
        "docker-agent",
        "Agent for Docker Agent (cagent)",
        types=(
            "application/vnd.docker.agent.config.*",
            "application/vnd.docker.cagent.config.*",
        ),
        file_names=(
            ("application/yaml", "agent{shard}.yaml"),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", "agent/"),
            ("application/vnd.oci.image.layer.*", "agent/"),
        ),
    ),
    ArtifactKind(
        "mcp-catalog",
        "Catalog of MCP servers",
        types=(_MCP + "catalog.*",),
        file_names=(("application/json", "catalog.json"), (_MCP + "catalog.*", "catalog.json")),
    ),
    ArtifactKind(
        "mcp-profile",
        "Profile of MCP servers",
        types=(_MCP + "profile.*",),
        file_names=(("application/json", "profile.json"), (_MCP + "profile.*", "profile.json")),
    ),
    ArtifactKind(
        "mcp-server",
        "Description of an MCP server",
        types=(_MCP + "server*",),
        file_names=(("application/json", "server.json"), (_MCP + "server*", "server.json")),
    ),
    ArtifactKind(
        "sandbox-kit",
        "Kit for Docker Sandboxes",
        types=(_KIT + "*",),
        file_names=(("application/vnd.oci.image.layer.*", "files/"),),
        config_file="spec.yaml",
    ),
)
