# SPDX-License-Identifier: Apache-2.0
"""Recipe of `fresco-draft`, the small text-to-image model that ships with the project."""
