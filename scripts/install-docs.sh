#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the documents with their pictures: install-docs.sh DIR. Links between them stay as they are. A link to a file
# of the source tree that is not installed becomes plain text.
set -eu

to=${1:?usage: install-docs.sh DIR}
cd "$(dirname "$0")/.."

find README.md LICENSE LICENSES docs flow/protocols.txt -type f ! -name '*.go' ! -name '*.patch' | while read -r file; do
    install -d "$to/$(dirname "$file")"
    install -m 644 "$file" "$to/$file"
done

find "$to" -name '*.md' | while read -r page; do
    grep -oE '\]\([^)#: ]+[^)]*\)' "$page" | sed 's/^](//; s/)$//' | sort -u | while read -r link; do
        case $link in
        *:*) continue ;; # an address
        esac
        if [ ! -e "$(dirname "$page")/${link%%#*}" ]; then
            escaped=$(printf '%s' "$link" | sed 's/[.[*^$\\|]/\\&/g')
            sed -i "s|\[\([^]]*\)\]($escaped)|\1|g" "$page"
        fi
    done
done
