// What the page uses of CodeMirror, as one module.
export { EditorState, Compartment, Prec, StateEffect } from "@codemirror/state";
export {
  EditorView, keymap, drawSelection, highlightSpecialChars, placeholder, showTooltip, hoverTooltip, lineNumbers,
} from "@codemirror/view";
export { defaultKeymap, history, historyKeymap, indentWithTab, insertNewlineAndIndent } from "@codemirror/commands";
export {
  bracketMatching, indentOnInput, indentUnit, syntaxHighlighting, HighlightStyle, foldKeymap,
} from "@codemirror/language";
export {
  autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap, startCompletion, acceptCompletion,
} from "@codemirror/autocomplete";
export { setDiagnostics, lintGutter, lintKeymap } from "@codemirror/lint";
export { searchKeymap, highlightSelectionMatches } from "@codemirror/search";
export { python, pythonLanguage } from "@codemirror/lang-python";
export { tags } from "@lezer/highlight";
