"""Configs: turns YAML files and overrides into checked settings that can't be changed later."""
