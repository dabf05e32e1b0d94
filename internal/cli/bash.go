// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"io"

	"github.com/spf13/cobra"
)

// bashFallback is what cobra's script for bash calls of the package bash-completion, in short,
// for systems without that package. Words of bash are split at = and :, which are part of ours.
const bashFallback = `# Without the package bash-completion: what is needed of it.
if ! declare -F _init_completion >/dev/null && ! declare -F _get_comp_words_by_ref >/dev/null; then
    _get_comp_words_by_ref() {
        local line=${COMP_LINE:0:COMP_POINT}
        # read takes no escapes: a quoted blank splits a word, which only makes its completion worse.
        read -r -a words <<<"$line"
        [[ $line == *[[:space:]] ]] && words+=("")
        cword=$((${#words[@]} - 1))
        cur=${words[cword]}
        prev=${words[cword - 1]}
    }
    if ! declare -F _filedir >/dev/null; then
        _filedir() {
            local extension=${1:-}
            if [[ $extension == -d ]]; then
                mapfile -t COMPREPLY < <(compgen -d -- "$cur")
                return
            fi
            mapfile -t COMPREPLY < <(shopt -s extglob; compgen -d -S / -- "$cur"; compgen -f ${extension:+-X "!*.@($extension)"} -- "$cur")
        }
    fi
fi

`

// completeWithoutPackage makes "completion bash" write a script that needs no other package.
// Call it after the output is set.
func completeWithoutPackage(root *cobra.Command, args []string, out io.Writer) {
	root.InitDefaultCompletionCmd(args...)
	bash, _, err := root.Find([]string{"completion", "bash"})
	if err != nil || bash.Name() != "bash" {
		return // there is no such command for these arguments
	}
	inner := bash.RunE
	bash.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := io.WriteString(out, bashFallback); err != nil {
			return err
		}
		return inner(cmd, args)
	}
	bash.Long = `Write the script that completes commands, flags and interfaces in bash. It works with and
without the package bash-completion.

To load it in this shell:         source <(` + root.Name() + ` completion bash)
To load it in every new shell:    add that line to ~/.bashrc`
}
