// A cell's editor: CodeMirror with completion, inspection and findings that the session gives.

import * as cm from "../vendor/codemirror.js";

const { tags } = cm;
// Colours are variables, so that light and dark are one style.
const COLOURS = cm.HighlightStyle.define([
  { tag: [tags.keyword, tags.operatorKeyword, tags.controlKeyword], color: "var(--code-keyword)" },
  { tag: [tags.string, tags.special(tags.string)], color: "var(--code-string)" },
  { tag: [tags.number, tags.bool, tags.null], color: "var(--code-number)" },
  { tag: tags.comment, color: "var(--code-comment)", fontStyle: "italic" },
  { tag: [tags.function(tags.variableName), tags.function(tags.propertyName)], color: "var(--code-function)" },
  { tag: [tags.className, tags.definition(tags.typeName)], color: "var(--code-class)" },
  { tag: tags.meta, color: "var(--code-comment)" },
]);
const LOOK = cm.EditorView.theme({
  "&": { backgroundColor: "transparent", fontSize: "14px" },
  "&.cm-focused": { outline: "none" },
  ".cm-content": { fontFamily: "var(--mono)", padding: "10px 0", caretColor: "var(--ink)" },
  ".cm-line": { padding: "0 12px" },
  ".cm-cursor": { borderLeftColor: "var(--ink)" },
  "&.cm-focused .cm-selectionBackground, .cm-selectionBackground, ::selection": { backgroundColor: "var(--selection) !important" },
  ".cm-tooltip": { backgroundColor: "var(--raised)", color: "var(--ink)", border: "1px solid var(--line)", borderRadius: "6px" },
  ".cm-tooltip-autocomplete ul li[aria-selected]": { backgroundColor: "var(--accent)", color: "var(--on-accent)" },
  "&.cm-focused .cm-matchingBracket": { backgroundColor: "var(--selection)", outline: "none" },
  ".cm-matchingBracket": { backgroundColor: "transparent" },
  ".cm-placeholder": { color: "var(--faint)" },
});
const LANGUAGES = { python: () => cm.python() };
// CodeMirror brings its style sheet along; the page's policy lets in the one that shows this number of the answer.
const NONCE = document.querySelector("meta[name=style-nonce]").content;
const VALIDATE_MS = 400; // after the last key

// `session` has complete(code, cursor), inspect(code, cursor), validate(code); each may answer null.
export class Editor {
  constructor({ code, language, session, keys, onChange, hint, label }) {
    this.session = session;
    this.language = new cm.Compartment();
    this.editable = new cm.Compartment();
    const shortcuts = Object.entries(keys).map(([key, run]) => ({ key, run: () => (run() === false ? false : true), preventDefault: true }));
    this.view = new cm.EditorView({
      state: cm.EditorState.create({
        doc: code,
        extensions: [
          cm.Prec.highest(cm.keymap.of([
            ...shortcuts,
            { key: "Shift-Tab", run: () => this.#inspect() },
            { key: "Tab", run: (view) => this.#tab(view) },
          ])),
          cm.history(), cm.drawSelection(), cm.highlightSpecialChars(), cm.indentOnInput(), cm.bracketMatching(), cm.closeBrackets(),
          cm.indentUnit.of("    "), cm.EditorView.lineWrapping, cm.syntaxHighlighting(COLOURS), LOOK, cm.EditorView.cspNonce.of(NONCE),
          // Asked for by a key, never by itself: the next key is meant for it, however soon it comes.
          cm.autocompletion({ override: [(context) => this.#complete(context)], activateOnTyping: false, interactionDelay: 0 }),
          cm.keymap.of([...cm.completionKeymap, ...cm.closeBracketsKeymap, ...cm.defaultKeymap, ...cm.historyKeymap]),
          cm.placeholder(hint), this.language.of(LANGUAGES[language]?.() ?? []), this.editable.of([]),
          cm.EditorView.contentAttributes.of({ "aria-label": label }),
          cm.EditorView.updateListener.of((update) => {
            if (!update.docChanged) return;
            this.#forgetTip();
            onChange(this.code);
            this.#validateSoon();
          }),
        ],
      }),
    });
    this.node = this.view.dom;
  }

  get code() {
    return this.view.state.doc.toString();
  }

  set code(code) {
    if (code !== this.code) this.view.dispatch({ changes: { from: 0, to: this.view.state.doc.length, insert: code } });
  }

  setReadOnly(is) {
    this.view.dispatch({ effects: this.editable.reconfigure(is ? [cm.EditorView.editable.of(false)] : []) });
  }

  focus() {
    this.view.focus();
  }

  get isAtTop() {
    const { state } = this.view;
    return state.doc.lineAt(state.selection.main.head).number === 1;
  }

  get isAtEnd() {
    const { state } = this.view;
    return state.doc.lineAt(state.selection.main.head).number === state.doc.lines;
  }

  close() {
    clearTimeout(this.timer);
    this.view.destroy();
  }

  // Lines from 1, columns from 0 in characters, as the server's findings have them.
  #placeOf(line, column) {
    const { doc } = this.view.state;
    const there = doc.line(Math.min(Math.max(line, 1), doc.lines));
    return there.from + units(there.text, column);
  }

  goTo(line, column) {
    this.view.dispatch({ selection: { anchor: this.#placeOf(line, column) }, scrollIntoView: true });
    this.view.focus();
  }

  showFindings(findings) {
    const place = (line, column) => this.#placeOf(line, column);
    const diagnostics = findings.filter(({ severity }) => severity !== "note").map((found) => {
      const from = place(found.line, found.column);
      return {
        from, to: Math.max(from, place(found.end_line, found.end_column)), severity: found.severity === "deny" ? "error" : "warning",
        message: found.hint ? `${found.message}\n${found.hint}` : found.message, source: found.rule,
      };
    });
    this.view.dispatch(cm.setDiagnostics(this.view.state, diagnostics.sort((a, b) => a.from - b.from)));
  }

  #validateSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(async () => {
      const { code } = this;
      const verdict = await this.session.validate(code);
      if (verdict && code === this.code) this.showFindings(verdict.findings);
    }, VALIDATE_MS);
  }

  #tab(view) {
    if (cm.acceptCompletion(view)) return true;
    const { from, empty } = view.state.selection.main;
    const line = view.state.doc.lineAt(from);
    if (!empty || !/\S/.test(line.text.slice(0, from - line.from))) return cm.indentWithTab.run(view);
    return cm.startCompletion(view);
  }

  async #complete(context) {
    if (!context.explicit) return null;
    const code = context.state.doc.toString();
    const answer = await this.session.complete(code, characters(code, context.pos));
    if (!answer) return null;
    const kinds = new Map((answer.types ?? []).map((one) => [one.text, one]));
    const options = answer.matches.map((label) => {
      const kind = kinds.get(label);
      return { label, type: kind?.type, detail: kind?.signature };
    });
    return { from: units(code, answer.start), to: units(code, answer.end), options, filter: false };
  }

  #inspect() {
    const { state } = this.view;
    const at = state.selection.main.head;
    this.session.inspect(this.code, characters(this.code, at)).then((answer) => {
      if (answer?.found) this.#showTip(at, answer.data["text/plain"] ?? "");
    });
    return true;
  }

  #showTip(at, text) {
    this.#forgetTip();
    const place = this.view.coordsAtPos(at);
    this.tip = document.createElement("pre");
    this.tip.className = "tip";
    this.tip.setAttribute("role", "tooltip");
    this.tip.textContent = text.replace(/\x1b\[[0-9;]*m/g, "");
    this.tip.style.left = `${Math.max(8, Math.min(place.left, innerWidth - 320))}px`;
    this.tip.style.top = `${place.bottom + scrollY + 4}px`;
    document.body.append(this.tip);
    this.forget = (event) => (event.key === "Escape" || event.type !== "keydown") && this.#forgetTip();
    for (const kind of ["keydown", "mousedown", "blur"]) this.view.contentDOM.addEventListener(kind, this.forget);
  }

  #forgetTip() {
    this.tip?.remove();
    this.tip = null;
  }
}

// The protocol counts characters, JavaScript counts UTF-16 units.
const characters = (code, unit) => [...code.slice(0, unit)].length;
const units = (code, character) => [...code].slice(0, character).join("").length;
