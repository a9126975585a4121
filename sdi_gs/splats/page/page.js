"use strict";
// A viewer of 3D Gaussians in one file: no library and no network. The world has z up and the object's front along +x;
// cameras have x right, y down, z forward, and colours are blended as they are displayed.

const scene = JSON.parse(document.getElementById("scene").textContent);
const canvas = document.getElementById("view");
const turnButton = document.getElementById("turn");
const background = document.getElementById("background");
const darkPage = matchMedia("(prefers-color-scheme: dark)");

const DEGREE = Math.PI / 180;
const KEY_STEP = 15; // degrees
const TURN_SPEED = 30; // degrees per second
const STEEPEST = 89; // degrees
const TEXTURE_WIDTH = 2048;
const TEXELS = 4; // per splat
const DEPTHS = 65536; // steps of depth that sorting tells apart
const BACKGROUNDS = { white: [1, 1, 1], gray: [0.5, 0.5, 0.5], black: [0, 0, 0] };

// ---- Data ----------------------------------------------------------------------------------------------------------

/** Return the file's splats: places, and four texels per splat: place and opacity, covariance, colour. */
function readSplats() {
  const text = atob(document.getElementById("splats").textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  const n = scene.count;
  let offset = 0;
  const part = (Kind, length) => {
    const values = new Kind(bytes.buffer, offset, length);
    offset += values.byteLength;
    return values;
  };
  const means = part(Float32Array, 3 * n);
  const logScales = part(Uint16Array, 3 * n);
  const quats = part(Int16Array, 4 * n);
  const rgba = part(Uint16Array, 4 * n);
  const harmonics = part(Int8Array, 3 * scene.harmonics * n);
  const texels = new Float32Array(padded(TEXELS * n) * 4);
  const [lowScale, highScale] = scene.log_scale_window;
  const [lowColour, highColour] = scene.colour_window;
  const toScale = (value) => Math.exp(lowScale + (value / 65535) * (highScale - lowScale));
  const toColour = (value) => lowColour + (value / 65535) * (highColour - lowColour);
  for (let i = 0; i < n; i++) {
    const scales = [0, 1, 2].map((axis) => toScale(logScales[3 * i + axis]));
    const turn = rotation(quats[4 * i], quats[4 * i + 1], quats[4 * i + 2], quats[4 * i + 3]);
    const at = 4 * TEXELS * i;
    texels.set(means.subarray(3 * i, 3 * i + 3), at);
    texels[at + 3] = rgba[4 * i + 3] / 65535;
    texels.set(covariance(turn, scales), at + 4);
    for (let c = 0; c < 3; c++) texels[at + 12 + c] = toColour(rgba[4 * i + c]);
  }
  return { means, texels, harmonics };
}

/** Return the rows of the rotation of a quaternion of any length. */
function rotation(w, x, y, z) {
  const length = Math.hypot(w, x, y, z);
  [w, x, y, z] = [w / length, x / length, y / length, z / length];
  return [
    [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
    [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
    [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
  ];
}

/** Return the upper triangle of turn diag(scales^2) turn^T: xx, xy, xz, yy, yz, zz. */
function covariance(turn, scales) {
  const entry = (i, j) => scales.reduce((sum, scale, k) => sum + turn[i][k] * turn[j][k] * scale * scale, 0);
  return [entry(0, 0), entry(0, 1), entry(0, 2), entry(1, 1), entry(1, 2), entry(2, 2)];
}

/** Return a number of texels that fills whole rows of a texture. */
function padded(count) {
  return Math.max(1, Math.ceil(count / TEXTURE_WIDTH)) * TEXTURE_WIDTH;
}

// ---- Camera --------------------------------------------------------------------------------------------------------

const start = { ...scene.view, target: [0, 0, 0] };
const view = { ...start };

/** Return the camera's place, its axes as rows, and its focal length in pixels. */
function camera() {
  const [a, e] = [view.azimuth_deg * DEGREE, view.elevation_deg * DEGREE];
  const outward = [Math.cos(e) * Math.cos(a), Math.cos(e) * Math.sin(a), Math.sin(e)];
  const right = [-Math.sin(a), Math.cos(a), 0];
  const down = [Math.sin(e) * Math.cos(a), Math.sin(e) * Math.sin(a), -Math.cos(e)];
  const eye = view.target.map((value, axis) => value + view.distance * outward[axis]);
  const focal = (0.5 * Math.min(canvas.width, canvas.height)) / Math.tan(0.5 * view.fov_y_deg * DEGREE);
  return { eye, right, down, forward: outward.map((value) => -value), focal };
}

function turnBy(azimuth, elevation) {
  view.azimuth_deg += azimuth;
  view.elevation_deg = Math.max(-STEEPEST, Math.min(STEEPEST, view.elevation_deg + elevation));
  redraw();
}

function zoomBy(factor) {
  view.distance = Math.max(0.1 * start.distance, Math.min(10 * start.distance, view.distance * factor));
  redraw();
}

/** Move the object with the pointer, by pixels of the page. */
function moveBy(x, y) {
  const { right, down } = camera();
  const perPixel = (2 * view.distance * Math.tan(0.5 * view.fov_y_deg * DEGREE)) /
    Math.min(canvas.clientWidth, canvas.clientHeight);
  view.target = view.target.map((value, axis) => value - perPixel * (x * right[axis] + y * down[axis]));
  redraw();
}

// ---- Sorting -------------------------------------------------------------------------------------------------------

const order = new Uint32Array(scene.count);
const depths = new Float32Array(scene.count);
const firsts = new Uint32Array(DEPTHS + 1);

/** Put the splats before the camera into `order`, the farthest first, by counting; return how many there are. */
function sortByDepth(means, { eye, forward }, near) {
  let [low, high] = [Infinity, -Infinity];
  for (let i = 0; i < scene.count; i++) {
    const depth = forward[0] * (means[3 * i] - eye[0]) + forward[1] * (means[3 * i + 1] - eye[1]) +
      forward[2] * (means[3 * i + 2] - eye[2]);
    depths[i] = depth;
    if (depth < near) continue;
    if (depth < low) low = depth;
    if (depth > high) high = depth;
  }
  const scale = (DEPTHS - 1) / Math.max(high - low, 1e-30);
  firsts.fill(0);
  for (let i = 0; i < scene.count; i++) {
    if (depths[i] >= near) firsts[((high - depths[i]) * scale | 0) + 1]++;
  }
  for (let k = 0; k < DEPTHS; k++) firsts[k + 1] += firsts[k];
  const seen = firsts[DEPTHS];
  for (let i = 0; i < scene.count; i++) {
    if (depths[i] >= near) order[firsts[(high - depths[i]) * scale | 0]++] = i;
  }
  return seen;
}

// ---- Drawing -------------------------------------------------------------------------------------------------------

const SPLAT_VERTEX = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp isampler2D;
uniform sampler2D splats;
uniform isampler2D harmonics;
uniform int harmonicCount; // above the constant one
uniform float harmonicStep;
uniform mat3 cameraFromWorld;
uniform vec3 eye;
uniform float focal; // pixels
uniform vec2 size; // pixels
layout(location = 0) in uint splat;
out vec2 offset; // standard deviations
flat out vec4 colour;

vec4 texel(uint part) {
  uint at = ${TEXELS}u * splat + part;
  return texelFetch(splats, ivec2(at % ${TEXTURE_WIDTH}u, at / ${TEXTURE_WIDTH}u), 0);
}

vec3 harmonic(int k) {
  uint at = uint(harmonicCount) * splat + uint(k - 1);
  return harmonicStep * vec3(texelFetch(harmonics, ivec2(at % ${TEXTURE_WIDTH}u, at / ${TEXTURE_WIDTH}u), 0).rgb);
}

vec3 shade(vec3 constant, vec3 direction) {
  vec3 sum = constant;
  float x = direction.x, y = direction.y, z = direction.z;
  if (harmonicCount >= 3) {
    sum += 0.48860251190292 * (-y * harmonic(1) + z * harmonic(2) - x * harmonic(3));
  }
  if (harmonicCount >= 8) {
    sum += 1.092548430592079 * (x * y * harmonic(4) - y * z * harmonic(5) - x * z * harmonic(7)) +
      (0.9461746957575601 * z * z - 0.3153915652525201) * harmonic(6) +
      0.5462742152960395 * (x * x - y * y) * harmonic(8);
  }
  if (harmonicCount >= 15) {
    float edge = 0.4570457994644658 * (5.0 * z * z - 1.0);
    sum += -0.5900435899266435 * y * (3.0 * x * x - y * y) * harmonic(9) +
      2.890611442640554 * x * y * z * harmonic(10) - edge * y * harmonic(11) +
      0.3731763325901154 * z * (5.0 * z * z - 3.0) * harmonic(12) - edge * x * harmonic(13) +
      1.445305721320277 * z * (x * x - y * y) * harmonic(14) -
      0.5900435899266435 * x * (x * x - 3.0 * y * y) * harmonic(15);
  }
  return max(sum, 0.0);
}

void main() {
  vec4 place = texel(0u), first = texel(1u), second = texel(2u);
  vec3 world = place.xyz - eye;
  vec3 seen = cameraFromWorld * world;
  mat3 spread = cameraFromWorld *
    mat3(first.x, first.y, first.z, first.y, first.w, second.x, first.z, second.x, second.y) *
    transpose(cameraFromWorld);
  // The projection's slope is taken within a margin around the picture (gsplat 1.5.3).
  vec2 widest = 0.5 * size / focal * 1.3;
  vec2 slope = clamp(seen.xy / seen.z, -widest, widest);
  mat3 slopes = mat3(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, -slope.x, -slope.y, 0.0) * (focal / seen.z);
  mat3 flattened = slopes * spread * transpose(slopes);
  float a = flattened[0][0] + 0.3, b = flattened[0][1], c = flattened[1][1] + 0.3;
  float middle = 0.5 * (a + c), half_ = length(vec2(0.5 * (a - c), b));
  // atan(0, 0) is undefined: a round splat has no longest axis.
  float angle = half_ > 1e-6 * middle ? 0.5 * atan(2.0 * b, a - c) : 0.0;
  float reach = sqrt(2.0 * log(max(255.0 * place.w, 1.0)));
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0 - 1.0;
  offset = reach * corner;
  vec2 axis = vec2(cos(angle), sin(angle));
  vec2 pixel = offset.x * sqrt(middle + half_) * axis + offset.y * sqrt(max(middle - half_, 0.1)) * vec2(-axis.y, axis.x);
  vec2 centre = focal * seen.xy / seen.z;
  gl_Position = vec4((centre + pixel) * 2.0 / size * vec2(1.0, -1.0), 0.0, 1.0);
  colour = vec4(shade(texel(3u).rgb, normalize(world)), place.w);
}`;

const SPLAT_FRAGMENT = `#version 300 es
precision highp float;
in vec2 offset;
flat in vec4 colour;
out vec4 drawn;
void main() {
  float alpha = min(0.999, colour.a * exp(-0.5 * dot(offset, offset)));
  if (alpha < 1.0 / 255.0) discard;
  drawn = vec4(colour.rgb * alpha, alpha);
}`;

const PAPER_VERTEX = `#version 300 es
void main() { gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0.0, 1.0); }`;

const PAPER_FRAGMENT = `#version 300 es
precision highp float;
uniform highp sampler2D object;
uniform vec3 paper;
out vec4 drawn;
void main() {
  vec4 found = texelFetch(object, ivec2(gl_FragCoord.xy), 0);
  drawn = vec4(found.rgb + (1.0 - found.a) * paper, 1.0);
}`;

/** Return a function that draws the splats as `camera` sees them, over a colour. */
function makeDrawing(gl, { means, texels, harmonics }) {
  const splatProgram = program(gl, SPLAT_VERTEX, SPLAT_FRAGMENT);
  const paperProgram = program(gl, PAPER_VERTEX, PAPER_FRAGMENT);
  // Eight bits would round after every splat. Old devices blend nothing else.
  const isFine = gl.getExtension("EXT_color_buffer_float") || gl.getExtension("EXT_color_buffer_half_float");
  const rgb = new Int8Array(padded(harmonics.length / 3) * 4);
  for (let i = 0; i < harmonics.length; i++) rgb[4 * Math.floor(i / 3) + (i % 3)] = harmonics[i];
  const parts = [
    texture(gl, gl.RGBA32F, gl.RGBA, gl.FLOAT, texels),
    texture(gl, gl.RGBA8I, gl.RGBA_INTEGER, gl.BYTE, rgb),
  ];
  const buffer = gl.createBuffer();
  gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
  gl.bufferData(gl.ARRAY_BUFFER, order.byteLength, gl.DYNAMIC_DRAW);
  gl.enableVertexAttribArray(0);
  gl.vertexAttribIPointer(0, 1, gl.UNSIGNED_INT, 0, 0);
  gl.vertexAttribDivisor(0, 1);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  const object = gl.createTexture();
  const frame = gl.createFramebuffer();
  let target = "";

  /** Make the picture that the splats are blended in as large as the canvas. */
  function fitTarget() {
    const wanted = `${canvas.width} ${canvas.height}`;
    if (target === wanted) return;
    target = wanted;
    gl.activeTexture(gl.TEXTURE2);
    gl.bindTexture(gl.TEXTURE_2D, object);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA16F, canvas.width, canvas.height, 0, gl.RGBA, gl.HALF_FLOAT, null);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, object, 0);
  }

  return (seen, paper) => {
    const count = sortByDepth(means, seen, 0.003 * start.distance);
    gl.bufferSubData(gl.ARRAY_BUFFER, 0, order, 0, count);
    if (isFine) fitTarget();
    gl.bindFramebuffer(gl.FRAMEBUFFER, isFine ? frame : null);
    gl.viewport(0, 0, canvas.width, canvas.height);
    if (isFine) gl.clearColor(0, 0, 0, 0);
    else gl.clearColor(...paper, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.enable(gl.BLEND);
    gl.useProgram(splatProgram);
    const at = (name) => gl.getUniformLocation(splatProgram, name);
    parts.forEach((part, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, part);
    });
    gl.uniform1i(at("splats"), 0);
    gl.uniform1i(at("harmonics"), 1);
    gl.uniform1i(at("harmonicCount"), scene.harmonics);
    gl.uniform1f(at("harmonicStep"), scene.harmonic_step);
    gl.uniformMatrix3fv(at("cameraFromWorld"), true, [...seen.right, ...seen.down, ...seen.forward]);
    gl.uniform3fv(at("eye"), seen.eye);
    gl.uniform1f(at("focal"), seen.focal);
    gl.uniform2f(at("size"), canvas.width, canvas.height);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, count);
    if (!isFine) return;
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.disable(gl.BLEND);
    gl.useProgram(paperProgram);
    gl.activeTexture(gl.TEXTURE2);
    gl.bindTexture(gl.TEXTURE_2D, object);
    gl.uniform1i(gl.getUniformLocation(paperProgram, "object"), 2);
    gl.uniform3fv(gl.getUniformLocation(paperProgram, "paper"), paper);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  };
}

function program(gl, vertex, fragment) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS) && !gl.isContextLost()) {
      throw new Error(gl.getShaderInfoLog(shader));
    }
  }
  gl.linkProgram(made);
  return made;
}

function texture(gl, inside, layout, kind, values) {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  gl.texImage2D(gl.TEXTURE_2D, 0, inside, TEXTURE_WIDTH, values.length / 4 / TEXTURE_WIDTH, 0, layout, kind, values);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  return made;
}

// ---- Page ----------------------------------------------------------------------------------------------------------

let draw = null; // null until there is something to draw with
let waiting = false;
let isTurning = false;
let lastFrame = 0;

function redraw() {
  if (waiting || !draw) return;
  waiting = true;
  requestAnimationFrame((now) => {
    waiting = false;
    if (isTurning) {
      // After a pause of the page the object goes on where it was.
      view.azimuth_deg += TURN_SPEED * Math.min((now - lastFrame) / 1000, 0.1);
      lastFrame = now;
      redraw();
    }
    if (draw) draw(camera(), paper());
    canvas.dataset.azimuth = (((view.azimuth_deg % 360) + 360) % 360).toFixed(3);
  });
}

/** Return the colour behind the object. */
function paper() {
  const chosen = BACKGROUNDS[background.value];
  if (chosen) return chosen;
  return darkPage.matches ? [0x14 / 255, 0x16 / 255, 0x1a / 255] : [1, 1, 1];
}

function setTurning(on) {
  isTurning = on;
  lastFrame = performance.now();
  turnButton.setAttribute("aria-pressed", String(on));
  redraw();
}

function reset() {
  setTurning(false);
  Object.assign(view, start);
  redraw();
}

/** Give the canvas as many pixels as the screen shows, two per pixel of the page at most. */
function fitCanvas() {
  const density = Math.min(devicePixelRatio || 1, 2);
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * density));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * density));
  redraw();
}

function listenToPointers() {
  const held = new Map();
  const middle = () => {
    const all = [...held.values()];
    const x = all.reduce((sum, point) => sum + point.x, 0) / all.length;
    const y = all.reduce((sum, point) => sum + point.y, 0) / all.length;
    return { x, y, spread: all.length > 1 ? Math.hypot(all[0].x - all[1].x, all[0].y - all[1].y) : 0 };
  };
  canvas.addEventListener("pointerdown", (event) => {
    setTurning(false);
    held.set(event.pointerId, { x: event.clientX, y: event.clientY });
    canvas.setPointerCapture(event.pointerId);
    canvas.classList.add("held");
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!held.has(event.pointerId)) return;
    const before = middle();
    held.set(event.pointerId, { x: event.clientX, y: event.clientY });
    const after = middle();
    const [x, y] = [after.x - before.x, after.y - before.y];
    if (held.size === 1 && !event.shiftKey && !(event.buttons & 6)) turnBy(-0.4 * x, 0.4 * y);
    else moveBy(x, y);
    if (before.spread && after.spread) zoomBy(before.spread / after.spread);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => {
      held.delete(event.pointerId);
      canvas.classList.toggle("held", held.size > 0);
    });
  }
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? 1 : 16;
    zoomBy(Math.exp(0.0015 * lines * Math.max(-200, Math.min(200, event.deltaY))));
  }, { passive: false });
}

function listenToKeys() {
  const actions = {
    ArrowLeft: () => turnBy(-KEY_STEP, 0),
    ArrowRight: () => turnBy(KEY_STEP, 0),
    ArrowUp: () => turnBy(0, KEY_STEP),
    ArrowDown: () => turnBy(0, -KEY_STEP),
    "+": () => zoomBy(1 / 1.15),
    "=": () => zoomBy(1 / 1.15),
    "-": () => zoomBy(1.15),
    " ": () => setTurning(!isTurning),
    r: reset,
    h: () => document.body.classList.toggle("bare"),
  };
  canvas.addEventListener("keydown", (event) => {
    const action = event.ctrlKey || event.metaKey || event.altKey ? null : actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

function showMessage(text) {
  const message = document.getElementById("message");
  message.textContent = text;
  message.hidden = false;
}

/** Show the object; again after the graphics card took its memory back. */
function begin(gl, splats) {
  const rows = Math.max(splats.texels.length / 4, splats.harmonics.length / 3) / TEXTURE_WIDTH;
  if (rows > gl.getParameter(gl.MAX_TEXTURE_SIZE)) {
    showMessage("This object has more splats than this device can draw.");
    return;
  }
  draw = makeDrawing(gl, splats);
  fitCanvas();
}

function main() {
  document.getElementById("title").textContent = scene.title;
  document.getElementById("facts").textContent = scene.facts.join(" · ");
  canvas.setAttribute("aria-label", `3D object: ${scene.title}`);
  const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false });
  if (!gl) {
    showMessage("This browser cannot draw the object: it has no WebGL 2, or it is switched off.");
    return;
  }
  const splats = readSplats();
  canvas.addEventListener("webglcontextlost", (event) => {
    event.preventDefault();
    draw = null;
  });
  canvas.addEventListener("webglcontextrestored", () => begin(gl, splats));
  turnButton.addEventListener("click", () => setTurning(!isTurning));
  document.getElementById("reset").addEventListener("click", reset);
  background.addEventListener("change", redraw);
  darkPage.addEventListener("change", redraw);
  new ResizeObserver(fitCanvas).observe(canvas);
  listenToPointers();
  listenToKeys();
  begin(gl, splats);
}

main();
