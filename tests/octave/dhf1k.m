% The metrics of the DHF1K benchmark for one frame, written a second time from their definitions.
%
%   octave-cli dhf1k.m FRAME.mat
%
% FRAME.mat holds `saliency` (a map of any size, larger where more salient), `fixations` (nonzero
% where someone looked), `density` (the blurred fixations), `others` (nonzero where someone looked
% in the ten other frames), `splits` (100 in the benchmark) and `seeds` (a list).
% It prints one line for each seed: AUC-J, s-AUC, NSS, CC, SIM, KLD.
1;  % this file is a script, not one function

% Every map is compared at the size of the fixation map, in double.

function map = at_size(map, target)
  map = double(map);
  if any(size(map) != size(target))
    map = shares(rows(map), rows(target)) * map * shares(columns(map), columns(target))';
  end
end

% Bicubic resizing along one axis, as a matrix with one row for each new pixel.
% Keys' kernel with a = -1/2, made wider where the axis shrinks, and edges that are mirrored.
function weights = shares(before, after)
  scale = after / before;
  squeeze = min(scale, 1);
  centre = ((1:after)' - 0.5) / scale + 0.5;
  reach = 2 / squeeze;
  taps = floor(centre - reach) + (0:ceil(2 * reach) + 1);
  w = keys(squeeze * (centre - taps));
  w ./= sum(w, 2);
  mirrored = [1:before, before:-1:1];
  taps = mirrored(mod(taps - 1, 2 * before) + 1);
  weights = sparse(repmat((1:after)', 1, columns(taps)), taps, w, after, before);  % repeats add up
end

function y = keys(x)
  x = abs(x);
  y = (x <= 1) .* (1.5 * x .^ 3 - 2.5 * x .^ 2 + 1) ...
      + (x > 1 & x <= 2) .* (-0.5 * x .^ 3 + 2.5 * x .^ 2 - 4 * x + 2);
end

function map = unit(map)
  map = (map - min(map(:))) / (max(map(:)) - min(map(:)));
end

% AUC-Judd: noise below 1e-7 breaks ties, each fixation's value is a threshold, and the negatives
% are the pixels that nobody looked at.
function score = auc_judd(saliency, fixations)
  map = unit(saliency + rand(size(saliency)) * 1e-7);
  hits = map(fixations != 0);
  misses = map(fixations == 0);
  thresholds = sort(hits, "descend")';
  score = trapz([0, mean(misses >= thresholds, 1), 1], [0, mean(hits >= thresholds, 1), 1]);
end

% Shuffled AUC: the negatives are other frames' fixations, as many as there are fixations here,
% drawn again without repeats for each split; thresholds go in steps of a tenth, from the larger of
% the two maxima's last full step to 0.
function score = auc_shuffled(saliency, fixations, others, splits)
  map = unit(saliency);
  hits = map(fixations != 0);
  pool = map(others != 0);
  draw = min(numel(hits), numel(pool));
  scores = zeros(1, splits);
  for split = 1:splits
    misses = pool(randperm(numel(pool), draw));
    thresholds = fliplr(0:0.1:max([hits; misses]));
    x = [0, mean(misses >= thresholds, 1), 1];
    y = [0, mean(hits >= thresholds, 1), 1];
    scores(split) = trapz(x, y);
  end
  score = mean(scores);
end

% NSS: the map in standard deviations (over N - 1) from its mean, averaged over the fixations.
function score = nss(saliency, fixations)
  score = mean(zscore(saliency(:))(fixations(:) != 0));
end

% CC: Pearson's correlation of the two maps.
function score = cc(saliency, density)
  score = corr(saliency(:), density(:));
end

% SIM: both maps from 0 to 1, then summing to 1; the sum of the smaller of the two at each pixel.
function score = sim(saliency, density)
  p = unit(saliency);
  q = unit(density);
  score = sum(min(p(:) / sum(p(:)), q(:) / sum(q(:))));
end

% KLD: how far the prediction is from the density, both summing to 1 (no minimum is subtracted).
% Bicubic resizing can leave a negative pixel, whose logarithm is complex: the real part is printed.
function score = kld(saliency, density)
  p = saliency(:) / sum(saliency(:));
  q = density(:) / sum(density(:));
  score = real(sum(q .* log(eps + q ./ (p + eps))));
end

frame = load(argv(){1});
fixations = double(frame.fixations);
density = double(frame.density);
saliency = at_size(frame.saliency, fixations);
for seed = double(frame.seeds(:))'
  rand("twister", seed);
  printf("%.17g ", auc_judd(saliency, fixations), ...
         auc_shuffled(saliency, fixations, frame.others, double(frame.splits)), ...
         nss(saliency, fixations), cc(saliency, density), sim(saliency, density), ...
         kld(saliency, density));
  printf("\n");
end
