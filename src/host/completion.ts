import { VmError } from "../lib/errors.ts";
import { COMPLETION_SHELLS, type CompletionShell } from "../lib/shell.ts";
import type { Context } from "../vm/context.ts";

/**
 * The scripts call the program itself, `PROG __complete SHELL LINE WORD`, with the line up to the cursor and the part of
 * it to replace. It prints candidates in the syntax of each shell.
 */
const SCRIPTS = {
  /** bash(1), "Programmable Completion". Without candidates, bash completes variables and users. */
  bash: (prog: string, name: string) => `# bash completion for ${prog}
${name}() {
  local line=\${COMP_LINE-\${COMP_WORDS[*]}} answer
  mapfile -t answer < <(command ${prog} __complete bash "\${line:0:\${COMP_POINT-\${#line}}}" "\${2-\${COMP_WORDS[COMP_CWORD]}}" 2>/dev/null)
  [ -z "\${answer[0]-}" ] || compopt -o "\${answer[0]}" 2>/dev/null || :
  COMPREPLY=("\${answer[@]:1}")
}
complete -o nosort -o bashdefault -F ${name} ${prog} 2>/dev/null || complete -o bashdefault -F ${name} ${prog}
`,
  /** zshcompwid(1), zshcompsys(1). */
  zsh: (prog: string, name: string) => `#compdef ${prog}
${name}() {
  local -a answer closed open
  answer=("\${(@f)$(command ${prog} __complete zsh "\${(j: :)words[1,CURRENT-1]} $QIPREFIX$PREFIX" "$PREFIX" 2>/dev/null)}")
  [[ -n $answer[1] ]] || return 1
  compset -p $answer[1]
  closed=(\${\${(M)answer:#s*}#s})
  open=(\${\${(M)answer:#n*}#n})
  _describe -V ${prog} closed -- open -S ''
}
if [[ \${funcstack[1]-} == ${name} ]]; then ${name} "$@"; else compdef ${name} ${prog}; fi
`,
  /** complete(1) of fish. */
  fish: (prog: string, name: string) => `# fish completion for ${prog}
function ${name}
    command ${prog} __complete fish (commandline -cp | string collect) 2>/dev/null
end
complete -c ${prog} -f -k -a '(${name})'
`,
} satisfies Record<CompletionShell, (prog: string, name: string) => string>;

/** @throws 64 for an unsupported shell */
export function parseShell(word: string): CompletionShell {
  const shell = COMPLETION_SHELLS.find((name) => name === word);
  if (shell) return shell;
  throw new VmError("usage", `cannot print a completion script: '${word}' is not supported`, {
    hint: `use one of: ${COMPLETION_SHELLS.join(" ")}`,
  });
}

/** Prints the completion script for a shell. */
export function printCompletion(context: Context, shell: CompletionShell): void {
  // zsh requires a comment with the name of the command.
  context.print(SCRIPTS[shell](context.prog, `_${context.prog}`));
}
