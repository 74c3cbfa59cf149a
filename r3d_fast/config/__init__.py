"""Configs: YAML files and overrides become checked, frozen settings."""
