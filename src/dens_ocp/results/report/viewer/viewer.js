// Draws the scenes of every ".viewer3d" element with 3Dmol.js. scenes.py says what a scene holds.
(() => {
  "use strict";
  const BALL = 0.55;                    // radius of atoms, in covalent radii
  const SMALL = 0.25, GHOST = 0.2;      // with arrows, which larger atoms would hide
  const BOND = 1.2;                     // atoms nearer than this, in sums of covalent radii
  const STICK = 0.09, THIN = 0.04;      // radii of bonds without and with arrows, Angstrom
  const ARROW = 0.09;                   // radius, Angstrom
  const AROUND = 1;                     // room around the centres of atoms, Angstrom
  const VIEW = [["vx", -80], ["vy", 12]]; // degrees
  const PER_SECOND = 8;                 // frames

  const unit = (values) => values.map((value) => value / 1000);
  const point = (flat, index) => ({ x: flat[3 * index], y: flat[3 * index + 1], z: flat[3 * index + 2] });
  const away = (a, b) => Math.hypot(a.x - b.x, a.y - b.y, a.z - b.z);

  function extent(values) {
    return values.reduce(([low, high], each) => [Math.min(low, each), Math.max(high, each)], [Infinity, -Infinity]);
  }

  // v + 2 w (u x v) + 2 u x (u x v), with the quaternion (u, w)
  function rotated(v, [x, y, z, w]) {
    const cross = (a, b) => [0, 1, 2].map((i) => {
      const j = (i + 1) % 3, k = (i + 2) % 3;
      return a[j] * b[k] - a[k] * b[j];
    });
    const once = cross([x, y, z], v), twice = cross([x, y, z], once);
    return v.map((each, i) => each + 2 * (w * once[i] + twice[i]));
  }

  let loading = null;
  function library() {
    loading = loading || (async () => {
      const text = atob(document.getElementById("viewer3d-library").textContent);
      const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      const code = document.createElement("script");
      code.textContent = await new Response(stream).text();
      document.head.append(code);
      return window.$3Dmol;
    })();
    return loading;
  }

  function make(tag, attributes = {}, ...inside) {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...inside);
    return element;
  }

  class Viewer {
    constructor(root) {
      this.root = root;
      this.content = JSON.parse(root.querySelector("script").textContent);
      this.note = root.querySelector(".viewer3d-note");
      this.note.textContent = "The 3D view appears when it comes into sight.";
      this.hidden = new Set(); // names of arrows that are switched off
      this.chosen = this.content.chosen;
      this.frame = 0;
    }

    async start() {
      this.root.dataset.state = "starting";
      const canvas = make("div", { className: "viewer3d-canvas" });
      canvas.style.height = `min(${this.root.dataset.height}px, 90vw)`;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", this.root.getAttribute("aria-label"));
      this.note.before(canvas);
      try {
        const library3d = await library();
        this.drawing = library3d.createViewer(canvas, {
          backgroundColor: "white", disableFog: true, orthographic: true, antialias: true,
        });
        if (!this.drawing) throw new Error("no drawing");
        this.controls(canvas);
        this.choose(this.chosen);
      } catch (error) {
        canvas.remove();
        this.root.querySelectorAll(".viewer3d-bar").forEach((bar) => bar.remove());
        this.note.textContent = "This browser cannot show the 3D view. It needs WebGL and a "
          + "version of 2023 or later.";
        this.root.dataset.state = "failed";
        console.warn("3D view:", error);
        return;
      }
      this.note.textContent = "Drag to turn. After a click or tap into the drawing the wheel and two "
        + "fingers zoom; Esc, or a click elsewhere, gives them back to the page.";
      this.root.dataset.state = "ready";
    }

    controls(canvas) {
      const { scenes } = this.content;
      const bars = [];
      if (scenes.length > 1) {
        const menu = make("select", {}, ...scenes.map((scene) => make("option", { textContent: scene.label })));
        menu.selectedIndex = this.chosen;
        menu.addEventListener("change", () => this.choose(menu.selectedIndex));
        bars.push(make("div", { className: "viewer3d-bar" }, make("label", {}, "Show ", menu)));
      }
      canvas.before(...bars);
      this.play = make("button", { type: "button", textContent: "Play" });
      this.slider = make("input", { type: "range", min: 0, value: 0, step: 1 });
      this.slider.setAttribute("aria-label", "frame");
      this.readout = make("output");
      this.reset = make("button", { type: "button", textContent: "Reset view" });
      this.play.addEventListener("click", () => (this.timer ? this.stop() : this.run()));
      this.slider.addEventListener("input", () => { this.stop(); this.show(+this.slider.value); });
      this.reset.addEventListener("click", () => this.look());
      this.legend = make("div", { className: "viewer3d-bar" });
      canvas.after(
        make("div", { className: "viewer3d-bar" }, this.play, this.slider, this.readout, this.reset),
        this.legend,
      );
      // the page keeps its wheel and its fingers until the drawing is clicked
      let active = false;
      const set = (on) => {
        active = on;
        canvas.style.outline = on ? "2px solid #0b5cad" : "none";
        canvas.style.touchAction = on ? "none" : "auto";
      };
      document.addEventListener("click", (event) => set(canvas.contains(event.target)));
      document.addEventListener("keydown", (event) => event.key === "Escape" && set(false));
      for (const name of ["wheel", "touchstart", "touchmove"]) {
        canvas.addEventListener(name, (event) => active || event.stopPropagation(), { capture: true, passive: true });
      }
    }

    choose(index) {
      this.stop();
      this.chosen = index;
      this.scene = this.content.scenes[index];
      const frames = this.scene.steps.length;
      this.play.hidden = this.slider.hidden = frames < 2;
      this.slider.max = frames - 1;
      this.explain();
      this.show(0);
      this.look();
    }

    explain() {
      const { scene, content } = this;
      const present = [...new Set(scene.elements)];
      const items = present.map((number) => {
        const dot = make("span", { className: "viewer3d-dot" });
        dot.style.background = content.elements[number].colour;
        return make("label", {}, dot, content.elements[number].symbol);
      });
      if (scene.fixed.length) items.push(make("span", { textContent: "paler: fixed atoms" }));
      if (scene.ghosts.length) items.push(make("span", { textContent: "translucent: original positions" }));
      for (const each of scene.arrows) {
        const box = make("input", { type: "checkbox", checked: !this.hidden.has(each.colour) });
        box.addEventListener("change", () => {
          this.hidden[box.checked ? "delete" : "add"](each.colour);
          this.show(this.frame);
        });
        const swatch = make("span", { className: "viewer3d-swatch" });
        swatch.style.background = each.colour;
        items.push(make("label", {}, box, swatch, each.name));
      }
      this.legend.replaceChildren(...items);
    }

    // the view of the report's pictures, with all atoms and arrows just inside
    look() {
      const { drawing, scene } = this, canvas = drawing.getCanvas().getBoundingClientRect();
      const seen = [];
      const include = (flat) => {
        for (let index = 0; index < flat.length / 3; index++) {
          const { x, y, z } = point(flat, index);
          for (const by of [-AROUND, AROUND]) {
            seen.push({ x: x + by, y, z }, { x, y: y + by, z }, { x, y, z: z + by });
          }
        }
      };
      include(this.positions(0));
      include(this.positions(scene.steps.length - 1));
      scene.arrows.forEach((each) => include(unit(each.ends)));
      drawing.setView([0, 0, 0, 0, 0, 0, 0, 1]);
      for (const [axis, degrees] of VIEW) drawing.rotate(degrees, axis);
      const turn = drawing.getView().slice(4), back = turn.map((each, i) => (i < 3 ? -each : each));
      const turned = seen.map((each) => rotated([each.x, each.y, each.z], turn));
      const ends = [0, 1, 2].map((axis) => extent(turned.map((each) => each[axis])));
      const centre = rotated(ends.map(([low, high]) => (low + high) / 2), back);
      drawing.zoomTo();
      drawing.setView([...centre.map((each) => -each), drawing.getView()[3], ...turn]);
      drawing.render();
      const at = drawing.modelToScreen(seen);
      const [width, height] = ["x", "y"].map((name) => {
        const [low, high] = extent(at.map((each) => each[name]));
        return high - low;
      });
      drawing.zoom(Math.min(canvas.width / width, canvas.height / height));
      drawing.render();
    }

    positions(frame) {
      const { positions, moving, moves } = this.scene;
      const flat = positions.slice();
      if (frame > 0) {
        moving.forEach((atom, row) => {
          for (const axis of [0, 1, 2]) flat[3 * atom + axis] = moves[frame - 1][3 * row + axis];
        });
      }
      return unit(flat);
    }

    show(frame) {
      const { drawing, scene, content } = this;
      this.frame = frame;
      const flat = this.positions(frame), fixed = new Set(scene.fixed);
      const [ball, thick] = scene.arrows.length ? [SMALL, THIN] : [BALL, STICK];
      const atoms = scene.elements.map((number, index) => {
        const element = content.elements[number];
        const color = fixed.has(index) ? element.pale : element.colour;
        return {
          ...point(flat, index), elem: element.symbol, serial: index, bonds: [], bondOrder: [],
          style: { sphere: { radius: ball * element.radius, color }, stick: { radius: thick, color } },
        };
      });
      const radius = scene.elements.map((number) => content.elements[number].radius);
      for (let i = 0; i < atoms.length; i++) {
        for (let j = i + 1; j < atoms.length; j++) {
          if (away(atoms[i], atoms[j]) < BOND * (radius[i] + radius[j])) {
            atoms[i].bonds.push(j); atoms[i].bondOrder.push(1);
            atoms[j].bonds.push(i); atoms[j].bondOrder.push(1);
          }
        }
      }
      drawing.removeAllModels();
      drawing.removeAllShapes();
      const model = drawing.addModel();
      model.addAtoms(atoms);
      this.box();
      if (frame === 0) this.extras();
      drawing.render();
      this.slider.value = frame;
      this.readout.textContent = this.state(frame);
      this.readout.hidden = !this.readout.textContent;
    }

    extras() {
      const { drawing, scene, content } = this;
      const ghosts = unit(scene.ghosts);
      scene.ghostElements.forEach((number, index) => {
        const { radius, colour } = content.elements[number];
        drawing.addSphere({ center: point(ghosts, index), radius: GHOST * radius, color: colour, opacity: 0.35 });
      });
      for (const each of scene.arrows) {
        if (this.hidden.has(each.colour)) continue;
        const ends = unit(each.ends);
        for (let index = 0; index < ends.length / 6; index++) {
          const start = point(ends, 2 * index), end = point(ends, 2 * index + 1);
          const long = away(start, end);
          drawing.addArrow({
            start, end, color: each.colour, radius: Math.min(ARROW, 0.2 * long), radiusRatio: 2.2,
            mid: Math.max(0.5, 1 - 0.45 / long),
          });
        }
      }
    }

    box() {
      const flat = unit(this.scene.cell);
      if (!flat.length) return;
      const corner = (i, j, k) => {
        const [a, b, c] = [0, 1, 2].map((row) => point(flat, row));
        const sum = (name) => i * a[name] + j * b[name] + k * c[name];
        return { x: sum("x"), y: sum("y"), z: sum("z") };
      };
      const bits = [0, 1];
      for (const i of bits) for (const j of bits) {
        for (const [start, end] of [
          [corner(0, i, j), corner(1, i, j)], [corner(i, 0, j), corner(i, 1, j)],
          [corner(i, j, 0), corner(i, j, 1)],
        ]) this.drawing.addLine({ start, end, color: "#8a929a" });
      }
    }

    state(frame) {
      const { steps, energies, maxForces } = this.scene;
      const parts = steps.length > 1 ? [`step ${steps[frame]} of ${steps[steps.length - 1]}`] : [];
      if (energies[frame] !== null) parts.push(`energy ${energies[frame].toFixed(3)} eV`);
      if (maxForces[frame] !== null) parts.push(`largest force ${maxForces[frame].toFixed(3)} eV/Å`);
      return parts.join(" · ").replace(/-/g, "\u2212");
    }

    run() {
      this.play.textContent = "Pause";
      const last = this.scene.steps.length - 1;
      if (this.frame === last) this.show(0);
      this.timer = setInterval(() => {
        if (this.frame >= last) this.stop();
        else this.show(this.frame + 1);
      }, 1000 / PER_SECOND);
    }

    stop() {
      clearInterval(this.timer);
      this.timer = null;
      if (this.play) this.play.textContent = "Play";
    }
  }

  for (const root of document.querySelectorAll(".viewer3d")) {
    const viewer = new Viewer(root);
    if (!("IntersectionObserver" in window)) { viewer.start(); continue; }
    const seen = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      seen.disconnect();
      viewer.start();
    }, { rootMargin: "300px" });
    seen.observe(root);
  }
})();
